//! Describes a sequence of moves.

use super::{
    moves::{How, Move},
    world::{ModelRevocation, ModelWorld, Setting, TICK},
};
use crate::{
    model::{Intent, Sender, StoreTime},
    protocol::attempt::AttemptEffect,
};

/// Describes the moves that lead from the first state to a violation, one on each line.
pub(super) fn describe(mut world: ModelWorld, moves: &[Move], rest: &[Move], setting: &Setting) -> String {
    let mut lines = Vec::new();
    for (at, chosen) in moves.iter().chain(rest.iter().take(80)).enumerate() {
        if at == moves.len() {
            lines.push("    from here on there are no faults:".to_owned());
            world.left.claims = 100;
        }
        let line = describe_move(&world, *chosen);
        let broken = world.carry_out(*chosen, setting).err();
        lines.push(format!("{:>3} {line}", at + 1));
        lines.push(format!("      {}", state(&world)));
        lines.extend(broken.map(|broken| format!("    -> {broken}")));
    }
    lines.join("\n")
}

fn describe_move(world: &ModelWorld, chosen: Move) -> String {
    let outcome = |how| match how {
        How::Well => "",
        How::Slowly => "; done, but the process is held up before it reads the reply",
        How::Unheard => "; done, but the acknowledgement is lost",
        How::Not => "; fails without effect",
        How::Late => "; silent, perhaps done later",
    };
    let request = |at: u8| {
        let request = &world.idp.requests[usize::from(at)];
        format!("attempt {}'s request with token {}", request.attempt, request.token)
    };
    match chosen {
        Move::Start(process) => format!("process {process} starts an attempt"),
        Move::StartKnowing(process) => format!("process {process} starts an attempt with an old row"),
        Move::Do(process, how) => {
            let Some(attempt) = &world.processes[usize::from(process)].attempt else { return String::new() };
            let doing = match &attempt.effect {
                AttemptEffect::Read => "reads the row".to_owned(),
                AttemptEffect::RepeatClaim => "repeats its claim".to_owned(),
                AttemptEffect::Send(_) if how == How::Well => "sends the request".to_owned(),
                AttemptEffect::Send(_) => return format!("process {process}, attempt {}: cannot connect", attempt.id),
                AttemptEffect::Commit => "commits".to_owned(),
                AttemptEffect::AwaitStore => "commits again".to_owned(),
                AttemptEffect::Journal => "writes the response to its journal".to_owned(),
                other => format!("{other:?}").replace("[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]", ""),
            };
            format!("process {process}, attempt {}: {doing}{}", attempt.id, outcome(how))
        }
        Move::Look(process) => format!("process {process} goes on and reads the reply to its claim"),
        Move::Silent(process) => format!("process {process} waits for the commit, in vain"),
        Move::Renew(process) => format!("process {process} renews its lease"),
        Move::Process(at) => format!("the provider processes {}", request(at)),
        Move::Respond(at) => {
            format!("{} gets its response: {:?}", request(at), world.idp.requests[usize::from(at)].response)
        }
        Move::WithoutAccessToken(at) => format!("{} gets a refresh token alone", request(at)),
        Move::Foreign(at) => format!("{} gets another subject's tokens", request(at)),
        Move::Unknown(at) => format!("{} gets no response (timeout, reset, 5xx)", request(at)),
        Move::Decline(at) => format!("{} is rejected without being processed", request(at)),
        Move::Execute(at) => format!("the store executes late: {:?}", world.delayed[usize::from(at)].change),
        Move::Flush(journal, _, how) => format!("an entry of journal {journal} is stored{}", outcome(how)),
        Move::Kill(process) => format!("process {process} is killed"),
        Move::Restart(process) => format!("process {process} restarts"),
        Move::Replace(process) => format!("process {process} restarts with a new disk"),
        Move::Connect => "the user connects again".to_owned(),
        Move::ConnectAgain(token) => format!("a connect with token {token} is repeated"),
        Move::ConnectWithout => "a connect without a refresh token".to_owned(),
        Move::Disconnect => "the user disconnects".to_owned(),
        Move::Restore => "the disconnect is undone".to_owned(),
        Move::RequireReconnect => "the application requires a reconnect".to_owned(),
        Move::Retry => "the refused token is retried".to_owned(),
        Move::Hold => "the grant is put on hold".to_owned(),
        Move::Release => "the grant is released".to_owned(),
        Move::Revoke(at) => {
            let ModelRevocation { token, begun } = world.revocations[usize::from(at)];
            format!("the revocation of token {token} {}", if begun { "reaches the provider" } else { "is sent" })
        }
        Move::Tick => "time passes".to_owned(),
    }
}

fn state(world: &ModelWorld) -> String {
    let row = &world.row;
    let ticks = |time: StoreTime| (time.0 - world.now.0) / TICK.as_millis() as i64;
    let senders = |intent: &Intent| {
        let sender = |sender: &Sender| {
            format!("{}@{}{}", sender.attempt.0[1], sender.owner.0[1], if sender.closed { " closed" } else { "" })
        };
        intent.senders.iter().map(sender).collect::<Vec<_>>().join(", ")
    };
    let mut parts = vec![format!("row: generation {}, token {:?}", row.generation.0, world.current())];
    parts.extend(row.alt.as_ref().map(|alt| format!("alt {} (epoch {})", alt.token.fingerprint.0[0], alt.by.epoch)));
    parts.extend(row.lease.map(|lease| format!("lease of {} for {}", lease.attempt.0[1], ticks(lease.until))));
    parts.extend(row.intent.as_ref().map(|intent| {
        let (since, settle) = (ticks(intent.since), ticks(intent.settle_from));
        let recovered = if intent.recovered { ", recovered" } else { "" };
        format!("intent {} [{}] since {since}, settle from {settle}{recovered}", intent.generation.0, senders(intent))
    }));
    parts.extend(row.verdict.as_ref().map(|verdict| format!("reconnect required by {:?}", verdict.by)));
    parts.extend(row.tombstone.map(|_| "tombstone".to_owned()));
    parts.extend(row.held.as_ref().map(|_| "on hold".to_owned()));
    parts.join("; ")
}

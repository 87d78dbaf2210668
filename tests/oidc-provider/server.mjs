// A real OpenID provider on loopback: refresh tokens are single use, and a second use ends the whole grant.
//
//   node server.mjs MODULES LIFE DELAY
//
// MODULES is the folder that `fetch` filled, LIFE that of access tokens in seconds, DELAY how long an answer of the token
// endpoint is on its way, in milliseconds. A line `pause` on standard input holds requests for tokens back until one that
// says `resume`; the input's end is the server's, so that whoever started it cannot leave it behind.
//
// Standard output tells what happened, a line of JSON each: first where it listens, then every request at the token
// endpoint, every grant that ended, and that a pause has begun. Of tokens it has a digest only.
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout } from 'node:timers/promises';

const [modules, life, delay] = process.argv.slice(2);
const { Provider } = await import(createRequire(`${resolve(modules)}/`).resolve('oidc-provider'));

const tell = (event) => process.stdout.write(`${JSON.stringify({ ...event, at: Date.now() })}\n`);
const digest = (token) => token && createHash('sha256').update(token).digest('hex').slice(0, 12);

const server = createServer().listen(0, '127.0.0.1');
await once(server, 'listening');
const issuer = `http://127.0.0.1:${server.address().port}`;

const provider = new Provider(issuer, {
  clients: [
    {
      client_id: 'web-app',
      client_secret: 'ts-test-secret-web-app',
      grant_types: ['authorization_code', 'refresh_token'],
      redirect_uris: ['http://127.0.0.1/callback'],
      token_endpoint_auth_method: 'client_secret_basic',
    },
  ],
  clockTolerance: 1, // its times are whole seconds, and no token may end before it said
  cookies: { keys: ['ts-test-secret-cookies'] },
  features: { devInteractions: { enabled: false } },
  findAccount: (_, accountId) => ({ accountId, claims: () => ({ sub: accountId }) }),
  interactions: { url: (_, { uid }) => `/interaction/${uid}` },
  rotateRefreshToken: true,
  ttl: {
    AccessToken: Number(life),
    AuthorizationCode: 60,
    Grant: 3600,
    IdToken: 60,
    Interaction: 60,
    RefreshToken: 3600,
    Session: 3600,
  },
});

// The user named by `login_hint` signs in and consents to what is asked for, without a page to click on.
provider.use(async (ctx, next) => {
  if (!ctx.path.startsWith('/interaction/')) return next();
  const { params } = await provider.interactionDetails(ctx.req, ctx.res);
  const grant = new provider.Grant({ accountId: params.login_hint, clientId: params.client_id });
  grant.addOIDCScope(params.scope);
  const granted = { login: { accountId: params.login_hint }, consent: { grantId: await grant.save() } };
  ctx.redirect(await provider.interactionResult(ctx.req, ctx.res, granted));
});

let paused, release;
const order = (line) => {
  if (line === 'resume') return release();
  paused = new Promise((done) => (release = done));
  tell({ event: 'paused' });
};
createInterface({ input: process.stdin }).on('line', order).on('close', () => process.exit());

provider.use(async (ctx, next) => {
  if (ctx.path !== '/token') return next();
  await paused;
  await next();
  await setTimeout(Number(delay));
});

const requested = (event) => (ctx, error) => {
  const { params = {}, entities = {} } = ctx.oidc;
  tell({
    event,
    grant_type: params.grant_type,
    user: entities.Account?.accountId,
    presented: digest(params.refresh_token),
    issued: digest(ctx.body?.refresh_token),
    access_token: digest(ctx.body?.access_token),
    error: error?.message,
    detail: error?.error_detail,
  });
};
provider.on('grant.success', requested('grant.success'));
provider.on('grant.error', requested('grant.error'));
provider.on('server_error', requested('server_error'));
provider.on('grant.revoked', (ctx) => tell({ event: 'grant.revoked', user: ctx.oidc.entities.Account?.accountId }));

server.on('request', provider.callback());
tell({ event: 'listening', issuer });

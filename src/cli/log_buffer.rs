//! The lines of the server's log on their way to stderr.
//!
//! A line that is [`put`](LogBuffer::put) waits for a thread, which writes all lines that have come in [`LINGER`] at once: a
//! system call for each token that is handed out would cost as much as the token. Every other line is written before its
//! event returns, after all lines before it. The order of the lines is the order of their events.
//!
//! No line is dropped. If the buffer is full, the caller writes it to stderr, and waits until stderr takes it. Once the
//! buffer is [closed](LogBuffer::close), every line is written at once. A process that is killed loses the lines that wait.
//!
//! `tracing-appender` writes each line on its own, and its guard gives up after a second at the end, when lines are lost.

use std::{
    io,
    mem::{swap, take},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use token_supervisor::web::TOKEN_LINE;
use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

/// A handle; clones share one buffer.
pub(super) struct LogBuffer<W>(Arc<BufferInner<W>>);

struct BufferInner<W> {
    waiting: Mutex<WaitingLines>,
    /// Wakes the thread: a line waits, or the buffer is closed.
    arrived: Condvar,
    /// Held while lines are taken and written, so that they keep their order.
    output: Mutex<Output<W>>,
}

#[derive(Default)]
struct WaitingLines {
    lines: Vec<u8>,
    is_closed: bool,
}

struct Output<W> {
    sink: W,
    /// The memory of the lines that were written last.
    spare: Vec<u8>,
}

/// A line waits this long at most, unless the sink is slow.
const LINGER: Duration = Duration::from_millis(10);
/// A caller that finds more bytes than this writes them.
const FULL: usize = 256 * 1024;
/// Between two tries while a sink that does not block takes no bytes.
const RETRY: Duration = Duration::from_millis(1);

impl<W: io::Write + Send + 'static> LogBuffer<W> {
    /// Starts the thread.
    ///
    /// # Errors
    /// The operating system starts no thread.
    pub(super) fn start(sink: W) -> io::Result<Self> {
        let buffer = Self::new(sink);
        let this = buffer.clone();
        thread::Builder::new().name("log-writer".into()).spawn(move || {
            while this.wait() {
                thread::sleep(LINGER);
                this.flush();
            }
        })?;
        Ok(buffer)
    }

    fn new(sink: W) -> Self {
        let output = Mutex::new(Output { sink, spare: Vec::new() });
        Self(Arc::new(BufferInner { waiting: Mutex::default(), arrived: Condvar::new(), output }))
    }

    /// Waits for a line; `false` once the buffer is closed.
    fn wait(&self) -> bool {
        let nothing = |waiting: &mut WaitingLines| waiting.lines.is_empty() && !waiting.is_closed;
        let waiting = self.0.arrived.wait_while(self.waiting(), nothing).unwrap_or_else(PoisonError::into_inner);
        !waiting.is_closed
    }

    /// Leaves a line to the thread.
    fn put(&self, line: &[u8]) {
        let mut waiting = self.waiting();
        let (is_first, is_closed) = (waiting.lines.is_empty(), waiting.is_closed);
        waiting.lines.extend_from_slice(line);
        let is_full = waiting.lines.len() > FULL;
        drop(waiting);
        if is_full || is_closed {
            self.flush();
        } else if is_first {
            self.0.arrived.notify_one();
        }
    }

    /// Writes a line, and those before it.
    fn write(&self, line: &[u8]) {
        self.waiting().lines.extend_from_slice(line);
        self.flush();
    }

    /// Writes all lines that wait. When it returns, lines that another thread had taken are written as well.
    fn flush(&self) {
        let mut output = self.0.output.lock().unwrap_or_else(PoisonError::into_inner);
        let Output { sink, spare } = &mut *output;
        swap(&mut self.waiting().lines, spare);
        write_all(sink, spare);
        spare.clear();
        if spare.capacity() > 2 * FULL {
            take(spare);
        }
    }

    /// Writes all lines that wait. From here on each line is written at once.
    pub(super) fn close(&self) {
        self.waiting().is_closed = true;
        self.0.arrived.notify_one();
        self.flush();
    }

    fn waiting(&self) -> MutexGuard<'_, WaitingLines> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes these lines, however long the sink takes. A sink that fails gets no more of them: there is no place to report it.
fn write_all(sink: &mut impl io::Write, mut lines: &[u8]) {
    while !lines.is_empty() {
        match sink.write(lines) {
            Ok(0) => return,
            Ok(written) => lines = &lines[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(RETRY),
            Err(_) => return,
        }
    }
}

impl<W> Clone for LogBuffer<W> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// The writer of one event.
pub(super) struct LineWriter<'a, W> {
    buffer: &'a LogBuffer<W>,
    may_wait: bool,
}

impl<'a, W: io::Write + Send + 'static> MakeWriter<'a> for LogBuffer<W> {
    type Writer = LineWriter<'a, W>;

    fn make_writer(&'a self) -> Self::Writer {
        LineWriter { buffer: self, may_wait: false }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Self::Writer {
        LineWriter { buffer: self, may_wait: metadata.name() == TOKEN_LINE }
    }
}

impl<W: io::Write + Send + 'static> io::Write for LineWriter<'_, W> {
    /// Takes a whole line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.may_wait {
            self.buffer.put(line)
        } else {
            self.buffer.write(line)
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a few bytes at a time, and nothing every other time.
    #[derive(Clone, Default)]
    struct SlowSink {
        written: Arc<Mutex<Vec<u8>>>,
        refuses: bool,
    }

    impl io::Write for SlowSink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.refuses = !self.refuses;
            if self.refuses {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let taken = bytes.len().min(FULL / 2);
            self.written.lock().unwrap().extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A buffer whose thread is not running.
    fn buffer() -> (LogBuffer<SlowSink>, impl Fn() -> String) {
        let sink = SlowSink::default();
        let written = sink.written.clone();
        (LogBuffer::new(sink), move || String::from_utf8(written.lock().unwrap().clone()).unwrap())
    }

    #[test]
    fn lines_keep_their_order_and_only_some_wait() {
        let (buffer, written) = buffer();
        buffer.put(b"1\n");
        buffer.put(b"2\n");
        assert_eq!(written(), "");
        buffer.write(b"3\n");
        assert_eq!(written(), "1\n2\n3\n");
        buffer.put(b"4\n");
        buffer.flush();
        assert_eq!(written(), "1\n2\n3\n4\n");
    }

    #[test]
    fn a_closed_buffer_keeps_nothing() {
        let (buffer, written) = buffer();
        buffer.put(b"1\n");
        buffer.close();
        assert_eq!(written(), "1\n");
        buffer.put(b"2\n");
        assert_eq!((written().as_str(), buffer.wait()), ("1\n2\n", false));
    }

    #[test]
    fn a_full_buffer_is_written_by_who_finds_it_full() {
        let (buffer, written) = buffer();
        let line = "x".repeat(FULL) + "\n";
        buffer.put(line.as_bytes());
        assert_eq!(written(), line);
        assert!(buffer.waiting().lines.is_empty());
    }

    #[test]
    fn the_thread_writes_lines_that_wait() {
        let (read, sink) = io::pipe().unwrap();
        let buffer = LogBuffer::start(sink).unwrap();
        let mut lines = io::BufReader::new(read);
        for expected in ["1\n", "2\n"] {
            buffer.put(expected.as_bytes());
            let mut line = String::new();
            io::BufRead::read_line(&mut lines, &mut line).unwrap();
            assert_eq!(line, expected);
        }
        buffer.close();
    }
}

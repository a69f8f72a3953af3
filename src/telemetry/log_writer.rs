//! The bounded, non-blocking writer of log lines.
//!
//! A thread of its own writes them. The serving threads only append to a queue in memory, so a pipe whose reader has
//! stopped blocks the log, not the gateway. Lines that find the queue full are dropped and counted, and the count is
//! written in their place.

use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::json;
use tracing_subscriber::fmt::MakeWriter;

use crate::sync::lock;

/// The most queued bytes of lines: some 5,000 lines, a burst but not an outage of the collector. As many again may be in the thread's hands.
const QUEUE_BYTES_MAX: usize = 1 << 20;

/// Larger buffers are freed after a burst.
const BUFFER_BYTES_KEPT: usize = 64 << 10;

/// Pause before a retry on an output that another process, which shares it, has made non-blocking.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Appends lines to the queue; one `write` is one line. Clones share the queue.
#[derive(Clone, Debug, Default)]
pub(super) struct LogWriter(Arc<LogQueue>);

#[derive(Debug, Default)]
struct LogQueue {
    queue: Mutex<Queue>,
    /// Notified when lines are queued, and when all have been written.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    lines: Vec<u8>,
    /// Number of lines that found no room since the queue was last taken.
    dropped: u64,
    /// Set while the thread writes lines that it has taken.
    writing: bool,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.dropped == 0
    }
}

impl LogWriter {
    /// Starts the thread that writes to `output`. `json` is the form of the notice about dropped lines.
    pub(super) fn start(output: impl Write + Send + 'static, json: bool) -> io::Result<Self> {
        let writer = Self::default();
        let queue = writer.clone();
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || queue.write_out(output, json))?;
        Ok(writer)
    }

    /// Waits until every queued line has been written, at most this long. Returns whether it has.
    pub(super) fn flush(&self, wait_max: Duration) -> bool {
        let busy = |queue: &mut Queue| queue.writing || !queue.is_empty();
        let waited = self.0.changed.wait_timeout_while(self.queue(), wait_max, busy);
        let (_queue, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        !timeout.timed_out()
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // No code panics under this lock, and the log must continue anyway.
        lock(&self.0.queue)
    }

    fn append(&self, line: &[u8]) {
        let mut queue = self.queue();
        if queue.lines.len() + line.len() > QUEUE_BYTES_MAX {
            queue.dropped += 1;
            return;
        }
        queue.lines.extend_from_slice(line);
        drop(queue);
        self.0.changed.notify_all();
    }

    fn write_out(&self, mut output: impl Write, json: bool) {
        let mut lines = Vec::new();
        loop {
            let dropped = self.take(&mut lines);
            write(&mut output, &lines);
            if dropped > 0 {
                // Behind the lines that filled the queue: the dropped ones belong here.
                write(&mut output, notice(dropped, json).as_bytes());
            }
            lines.clear();
            lines.shrink_to(BUFFER_BYTES_KEPT);
        }
    }

    /// Waits for lines and takes them. Returns the number dropped behind them.
    fn take(&self, lines: &mut Vec<u8>) -> u64 {
        let mut queue = self.queue();
        queue.writing = false;
        self.0.changed.notify_all();
        let waited = self.0.changed.wait_while(queue, |queue| queue.is_empty());
        queue = waited.unwrap_or_else(PoisonError::into_inner);
        queue.writing = true;
        std::mem::swap(&mut queue.lines, lines);
        std::mem::take(&mut queue.dropped)
    }
}

impl Write for LogWriter {
    /// Never fails: a failed log line has nowhere to be reported.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.append(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Writes all lines, unless the output is gone.
fn write(output: &mut impl Write, mut lines: &[u8]) {
    while !lines.is_empty() {
        match output.write(lines) {
            Ok(0) => return,
            Ok(written) => lines = &lines[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => pause(),
            Err(_) => return,
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the thread has nothing else to do")]
fn pause() {
    thread::sleep(RETRY_PAUSE);
}

/// Formats a line like `tracing_subscriber`. Not an event: a filter could remove it.
fn notice(dropped: u64, json: bool) -> String {
    const MESSAGE: &str = "log lines dropped";
    let time = humantime::format_rfc3339_micros(SystemTime::now());
    if json {
        let (timestamp, target) = (time.to_string(), module_path!());
        let line =
            json!({"timestamp": timestamp, "level": "WARN", "message": MESSAGE, "dropped": dropped, "target": target});
        format!("{line}\n")
    } else {
        format!("{time}  WARN {MESSAGE} dropped={dropped}\n")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// Gives each write to a reader, which holds it up for as long as it does not read.
    struct Pipe(SyncSender<Vec<u8>>);

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let gone = |_| io::Error::from(ErrorKind::BrokenPipe);
            self.0.send(bytes.to_vec()).map(|()| bytes.len()).map_err(gone)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A log with a first line that the reader has not taken.
    fn stuck(json: bool) -> (LogWriter, Receiver<Vec<u8>>) {
        let (sender, reader) = sync_channel(0);
        let log = LogWriter::start(Pipe(sender), json).unwrap();
        log.append(b"first\n");
        assert!(!log.flush(Duration::from_millis(1)), "it has not been read");
        (log, reader)
    }

    fn next(reader: &Receiver<Vec<u8>>) -> String {
        String::from_utf8(reader.recv_timeout(PATIENCE).unwrap()).unwrap()
    }

    #[test]
    fn lines_beyond_the_bound_are_dropped_and_counted_where_they_are_missing() {
        let (log, reader) = stuck(true);
        let line = vec![b'x'; 64 << 10];
        // The queue is empty or holds the first line, by whether the thread has taken it.
        for _ in 0..40 {
            log.append(&line);
        }
        let mut written = String::new();
        let notice = loop {
            let some = next(&reader);
            match serde_json::from_str::<serde_json::Value>(&some) {
                Ok(notice) => break notice,
                Err(_) => written.push_str(&some),
            }
        };
        let kept = written.matches('x').count() / line.len();
        assert!((15..=16).contains(&kept), "{kept}");
        assert_eq!(notice["dropped"], 40 - kept);
        assert!(log.flush(PATIENCE));
        log.append(b"after\n");
        assert_eq!(next(&reader), "after\n");
    }

    #[test]
    fn appending_goes_on_after_the_reader_is_gone() {
        let (log, reader) = stuck(false);
        drop(reader);
        for _ in 0..100 {
            log.append(b"line\n");
        }
        assert!(log.flush(PATIENCE));
    }

    #[test]
    fn an_output_that_would_block_is_tried_again() {
        struct Hesitant(Vec<u8>, SyncSender<Vec<u8>>);
        impl Write for Hesitant {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.push(bytes[0]);
                match self.0.len() {
                    1 => Err(ErrorKind::WouldBlock.into()),
                    2 => Err(ErrorKind::Interrupted.into()),
                    _ => self
                        .1
                        .send(bytes.to_vec())
                        .map(|()| bytes.len())
                        .map_err(io::Error::other),
                }
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (sender, reader) = sync_channel(1);
        let log = LogWriter::start(Hesitant(Vec::new(), sender), false).unwrap();
        log.append(b"line\n");
        assert_eq!(next(&reader), "line\n");
    }
}

//! One accepted connection, plain or TLS, as the HTTP server sees it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::connections::Slot;
use super::{BROKEN, Fault, OnFault, TIMEOUT};

/// The longest head, in bytes. Buildkite's has less than one KB, and proxies add little; the HTTP server alone would
/// hold 128 KB for each connection of whoever sends that much.
const LONGEST_HEAD: usize = 16 << 10;
/// What the HTTP server gets to read before it has to look at it, in bytes: its buffer never grows much beyond.
const PORTION: usize = 8 << 10;

/// The transport, and the answers that the HTTP server makes by itself before there is a request: those are bare, and
/// become errors in JSON on their way out.
pub(super) struct Stream {
    transport: Transport,
    slot: Slot,
    on_fault: OnFault,
    answer: Option<(Vec<u8>, usize)>,
    /// Bytes read before there was a head.
    before_head: usize,
    /// Bytes read since the HTTP server last looked at them.
    portion: usize,
}

/// What carries the bytes.
pub(super) enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    pub(super) fn new(transport: Transport, slot: Slot, on_fault: &OnFault) -> Self {
        Self { transport, slot, on_fault: Arc::clone(on_fault), answer: None, before_head: 0, portion: 0 }
    }

    pub(super) fn slot(&self) -> Slot {
        self.slot.view()
    }
}

macro_rules! poll {
    ($stream:expr, $method:ident($($argument:expr),*)) => {
        match &mut $stream.transport {
            Transport::Plain(tcp) => Pin::new(tcp).$method($($argument),*),
            Transport::Tls(tls) => Pin::new(tls).$method($($argument),*),
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.portion >= PORTION {
            self.portion = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.before_head >= LONGEST_HEAD && !self.slot.has_head() {
            return self.refuse_head(cx).map(Ok);
        }
        let before = buffer.filled().len();
        ready!(poll!(self, poll_read(cx, buffer)))?;
        let read = buffer.filled().len() - before;
        self.portion += read;
        self.before_head += read;
        Poll::Ready(Ok(()))
    }
}

impl Stream {
    /// Answers in place of the HTTP server, which then sees a connection that ended.
    fn refuse_head(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.answer.is_none() {
            (self.on_fault)(Fault::MalformedHead);
            let status = b"HTTP/1.1 431 Request Header Fields Too Large";
            self.answer = Some((answer(status, Fault::MalformedHead), 0));
        }
        // Nothing was written before: there is room, or there is nobody to read it.
        if let Some((answer, written)) = &mut self.answer
            && *written == 0
        {
            let bytes = std::mem::take(answer);
            let _ = poll!(self, poll_write(cx, &bytes));
            let _ = poll!(self, poll_flush(cx));
        }
        Poll::Ready(())
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.answer.is_none()
            && !self.slot.has_head()
            && let Some(fault) = fault(bytes)
        {
            (self.on_fault)(fault);
            self.answer = Some((answer(bytes, fault), 0));
        }
        let Some((answer, mut written)) = self.answer.take() else { return poll!(self, poll_write(cx, bytes)) };
        while written < answer.len() {
            match poll!(self, poll_write(cx, &answer[written..])) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(more)) => written += more,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.answer = Some((answer, written));
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        poll!(self, poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Flushed first: what TLS still holds back would be lost.
        ready!(poll!(self, poll_flush(cx)))?;
        poll!(self, poll_shutdown(cx))
    }
}

fn fault(bytes: &[u8]) -> Option<Fault> {
    match bytes.strip_prefix(b"HTTP/1.1 ")?.get(..3)? {
        b"408" => Some(Fault::SlowHead),
        b"400" | b"431" => Some(Fault::MalformedHead),
        _ => None,
    }
}

/// The same status line with a body of ours.
fn answer(bytes: &[u8], fault: Fault) -> Vec<u8> {
    let status = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let body = match fault {
        Fault::SlowHead => TIMEOUT,
        Fault::MalformedHead => BROKEN,
    };
    let head =
        format!("\r\ncontent-length: {}\r\nconnection: close\r\ncontent-type: application/json\r\n\r\n", body.len());
    [status, head.as_bytes(), body.as_bytes()].concat()
}

//! Cardinality check of methods that take one message.
//!
//! tonic reads the first message and drops any other, so a method would run although its caller meant something else. gRPC
//! has a status for that ("Status codes and their use in gRPC", request cardinality violation): UNIMPLEMENTED. The body is
//! checked on its way to tonic, which calls no method before it has seen the body's end.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

use super::status::Refusal;

/// Reports whether a method takes one message.
pub(super) fn takes_one(path: &str) -> bool {
    path.starts_with("/roomcast.v1.") && path != "/roomcast.v1.PublishService/PublishStream"
}

/// A body that fails where a second message begins.
pub(super) fn only_one(body: Body) -> Body {
    Body::new(Single {
        body,
        message: Message::default(),
    })
}

struct Single {
    body: Body,
    message: Message,
}

impl hyper::body::Body for Single {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(bytes) = frame.data_ref()
            && self.message.ends_within(bytes)
        {
            return Poll::Ready(Some(Err(Refusal::Unimplemented("stream of requests").into())));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Parser state in a body's first message: a flag, four bytes of length, and so many bytes (gRPC over HTTP/2,
/// "Length-Prefixed-Message"). Neither is validated here.
#[derive(Debug, Default)]
struct Message {
    prefix_bytes: u8,
    bytes_left: u32,
}

impl Message {
    const PREFIX_BYTES: u8 = 5;

    /// Consumes received bytes. Reports whether any follow the message's end.
    fn ends_within(&mut self, mut bytes: &[u8]) -> bool {
        while let [byte, rest @ ..] = bytes
            && self.prefix_bytes < Self::PREFIX_BYTES
        {
            if self.prefix_bytes > 0 {
                self.bytes_left = self.bytes_left << 8 | u32::from(*byte);
            }
            self.prefix_bytes += 1;
            bytes = rest;
        }
        match u32::try_from(bytes.len()) {
            Ok(len) if len <= self.bytes_left => {
                self.bytes_left -= len;
                false
            }
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(chunks: &[&[u8]]) -> bool {
        let mut message = Message::default();
        chunks.iter().any(|chunk| message.ends_within(chunk))
    }

    #[test]
    fn a_second_message_is_seen_however_the_bytes_are_cut() {
        let one = [&[1, 0, 0, 1, 4][..], &[7; 260]].concat();
        let empty = vec![0; 5];
        for message in [&one, &empty] {
            let more = [&message[..], &[0]].concat();
            let two = [&message[..], &message[..]].concat();
            for at in 0..=message.len() {
                let (a, b) = message.split_at(at);
                assert!(!ends(&[a, b]) && !ends(&[a, &[], b, &[]]), "{at}");
                let (a, b) = more.split_at(at);
                assert!(ends(&[a, b]), "{at}");
                let (a, b) = two.split_at(at);
                assert!(ends(&[a, b]), "{at}");
            }
            let single: Vec<&[u8]> = message.chunks(1).collect();
            assert!(!ends(&single));
        }
    }

    #[test]
    fn only_methods_of_one_message_are_watched() {
        for (path, expected) in [
            ("/roomcast.v1.PublishService/Publish", true),
            ("/roomcast.v1.PublishService/PublishBatch", true),
            ("/roomcast.v1.WatchService/Watch", true),
            ("/roomcast.v1.SubscribeService/Subscribe", true),
            ("/roomcast.v1.PublishService/PublishStream", false),
            ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", false),
        ] {
            assert_eq!(takes_one(path), expected, "{path}");
        }
    }
}

//! What clients send: commands in both encodings, and the frames they come in.

use prost::Message as _;
use roomcast::proto::client_v1;
use roomcast::proto::client_v1::client_frame::Command;
use roomcast::proto::client_v1::payload::Content;

use super::payload;

/// A client's publish command as JSON.
pub fn publish_json() -> String {
    let payload = payload();
    format!(
        r#"{{"id":3,"publish":{{"room":"room:1","eventName":"task:created","payload":{}}}}}"#,
        payload.as_str()
    )
}

/// A client's frame, complete in one piece (RFC 6455 section 5.2).
pub fn masked_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![0x80 | opcode];
    if let Ok(short @ ..126) = u8::try_from(payload.len()) {
        frame.push(0x80 | short);
    } else {
        let length = u16::try_from(payload.len()).expect("a benchmark's frame is small");
        frame.push(0x80 | 0x7e);
        frame.extend(length.to_be_bytes());
    }
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// The same as protobuf.
pub fn publish_protobuf() -> Vec<u8> {
    let payload = client_v1::Payload {
        content: Some(Content::Json(payload().as_str().to_owned())),
    };
    let publish = client_v1::Publish {
        room: "room:1".to_owned(),
        event_name: "task:created".to_owned(),
        payload: Some(payload),
        ..client_v1::Publish::default()
    };
    encode(Command::Publish(publish))
}

/// A client's join command as protobuf.
pub fn join_protobuf() -> Vec<u8> {
    encode(Command::Join(client_v1::Join {
        room: "room:1".to_owned(),
        presence: client_v1::PresenceMode::Members.into(),
        ..client_v1::Join::default()
    }))
}

fn encode(command: Command) -> Vec<u8> {
    let frame = client_v1::ClientFrame {
        id: 3,
        command: Some(command),
    };
    frame.encode_to_vec()
}

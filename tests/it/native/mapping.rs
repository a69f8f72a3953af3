//! The mapping at the head of `client.proto`, written against the contract's descriptors and not against our types:
//! what turns a JSON frame into a protobuf one and back, for any client that is written once.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage, Value};
use roomcast::proto::FILE_DESCRIPTOR_SET;
use serde_json::{Map, Value as Json, json};

static CONTRACT: LazyLock<DescriptorPool> = LazyLock::new(|| DescriptorPool::decode(FILE_DESCRIPTOR_SET).unwrap());

fn descriptor(name: &str) -> MessageDescriptor {
    CONTRACT
        .get_message_by_name(&format!("roomcast.client.v1.{name}"))
        .unwrap()
}

/// A client's JSON frame as protobuf.
pub fn client_frame_to_protobuf(frame: &Json) -> Vec<u8> {
    from_json(&descriptor("ClientFrame"), frame).encode_to_vec()
}

/// A server's protobuf frame as JSON.
pub fn server_frame_to_json(bytes: &[u8]) -> Json {
    to_json(&DynamicMessage::decode(descriptor("ServerFrame"), bytes).unwrap())
}

fn is_payload(field: &FieldDescriptor) -> bool {
    matches!(field.kind(), Kind::Message(kind) if kind.name() == "Payload")
}

fn to_json(message: &DynamicMessage) -> Json {
    let mut object = Map::new();
    for (field, value) in message.fields() {
        if field.name() == "state_json" {
            object.insert("state".into(), serde_json::from_str(value.as_str().unwrap()).unwrap());
        } else if is_payload(&field) {
            let (content, value) = value.as_message().unwrap().fields().next().unwrap();
            let (key, value) = match content.name() {
                "json" => ("payload", serde_json::from_str(value.as_str().unwrap()).unwrap()),
                _ => ("binary", STANDARD.encode(value.as_bytes().unwrap()).into()),
            };
            object.insert(key.into(), value);
        } else {
            object.insert(field.json_name().into(), value_to_json(&field, value));
        }
    }
    Json::Object(object)
}

fn value_to_json(field: &FieldDescriptor, value: &Value) -> Json {
    match value {
        Value::Bool(value) => json!(value),
        Value::U32(value) => json!(value),
        Value::U64(value) => json!(value),
        Value::I64(value) => json!(value),
        Value::String(value) => json!(value),
        Value::EnumNumber(number) => json!(word(field, *number)),
        Value::Message(message) => to_json(message),
        Value::List(values) => values.iter().map(|value| value_to_json(field, value)).collect(),
        other => panic!("the contract has no {other:?}"),
    }
}

/// An enum value in lower case without the enum's name.
fn word(field: &FieldDescriptor, number: i32) -> String {
    let Kind::Enum(kind) = field.kind() else {
        panic!("{field:?} is no enum")
    };
    let zero = kind.get_value(0).unwrap();
    let prefix = zero.name().strip_suffix("UNSPECIFIED").unwrap();
    kind.get_value(number)
        .unwrap()
        .name()
        .strip_prefix(prefix)
        .unwrap()
        .to_lowercase()
}

fn from_json(kind: &MessageDescriptor, object: &Json) -> DynamicMessage {
    let mut message = DynamicMessage::new(kind.clone());
    for (key, value) in object.as_object().unwrap() {
        match key.as_str() {
            "state" => message.set_field_by_name("state_json", Value::String(value.to_string())),
            "payload" => set_payload(&mut message, "json", Value::String(value.to_string())),
            "binary" => {
                let bytes = STANDARD.decode(value.as_str().unwrap()).unwrap();
                set_payload(&mut message, "binary", Value::Bytes(bytes.into()));
            }
            _ => {
                let field = kind
                    .get_field_by_json_name(key)
                    .unwrap_or_else(|| panic!("no field {key}"));
                message.set_field(&field, value_from_json(&field, value));
            }
        }
    }
    message
}

fn set_payload(message: &mut DynamicMessage, content: &str, value: Value) {
    let field = message.descriptor().get_field_by_name("payload").unwrap();
    let mut payload = DynamicMessage::new(descriptor("Payload"));
    payload.set_field_by_name(content, value);
    message.set_field(&field, Value::Message(payload));
}

fn value_from_json(field: &FieldDescriptor, value: &Json) -> Value {
    if let Json::Array(values) = value {
        return Value::List(values.iter().map(|value| value_from_json(field, value)).collect());
    }
    match field.kind() {
        Kind::Bool => Value::Bool(value.as_bool().unwrap()),
        Kind::Uint32 => Value::U32(u32::try_from(value.as_u64().unwrap()).unwrap()),
        Kind::Uint64 => Value::U64(value.as_u64().unwrap()),
        Kind::Int64 => Value::I64(value.as_i64().unwrap()),
        Kind::String => Value::String(value.as_str().unwrap().to_owned()),
        Kind::Message(kind) => Value::Message(from_json(&kind, value)),
        Kind::Enum(kind) => {
            let said = value.as_str().unwrap();
            let number = kind
                .values()
                .map(|value| value.number())
                .find(|number| word(field, *number) == said);
            Value::EnumNumber(number.unwrap_or_else(|| panic!("no value {said}")))
        }
        other => panic!("the contract has no {other:?}"),
    }
}

//! Output of `tail`, as a line for a person or as a JSON object.

use std::fmt;
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::follow::Gap;
use crate::proto::client_v1::{Event, Joined, Payload, PresenceDelta, Retention, payload};
use crate::units::millis;

/// One line of output.
#[derive(Debug)]
pub(super) enum Line<'a> {
    Connected { user: &'a str, connection: &'a str },
    Joined { joined: &'a Joined, resumed: bool },
    Event(&'a Event),
    Presence(&'a PresenceDelta),
    Gap { room: &'a str, gap: Gap },
    Notice { room: &'a str, text: &'a str },
    Lost { reason: &'a str, pause: Duration },
}

#[derive(Debug)]
pub(super) struct Printer {
    json: bool,
}

impl Printer {
    pub(super) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Writes a line. A closed pipe (`tail | head`) ends the program silently.
    pub(super) fn show(&self, line: &Line<'_>) {
        let written = match (self.json, line) {
            (true, _) => writeln!(std::io::stdout(), "{}", line.as_json()),
            (false, Line::Event(_)) => writeln!(std::io::stdout(), "{line}"),
            (false, _) => writeln!(std::io::stderr(), "{line}"),
        };
        if written.is_err() {
            std::process::exit(0);
        }
    }
}

impl Line<'_> {
    fn as_json(&self) -> String {
        let line = match self {
            Self::Connected { user, connection } => {
                json!({"kind": "connected", "user": user, "connection": connection})
            }
            Self::Joined { joined, resumed } => json!({
                "kind": "joined",
                "room": joined.room,
                "head": joined.head.as_ref().map(|at| place(&at.epoch, at.offset)),
                "resumed": resumed,
                "recovered": joined.recovered,
                "replayed": joined.replayed,
            }),
            Self::Event(event) => return event_json(event),
            Self::Presence(delta) => json!({
                "kind": "presence",
                "room": delta.room,
                "joined": delta.joined.iter().map(|member| &member.user_id).collect::<Vec<_>>(),
                "left": delta.left_user_ids,
                "members": delta.member_count,
            }),
            Self::Gap { room, gap } => json!({"kind": "gap", "room": room, "after": gap.after, "upTo": gap.up_to}),
            Self::Notice { room, text } => json!({"kind": "notice", "room": room, "text": text}),
            Self::Lost { reason, pause } => {
                json!({"kind": "lost", "reason": reason, "pauseMs": millis(*pause)})
            }
        };
        line.to_string()
    }
}

fn place(epoch: &str, offset: u64) -> Value {
    json!({"epoch": epoch, "offset": offset})
}

fn event_json(event: &Event) -> String {
    let content = event.payload.as_ref().and_then(|payload| payload.content.as_ref());
    let (key, content) = match content {
        Some(payload::Content::Binary(bytes)) => ("binary", format!("\"{}\"", STANDARD.encode(bytes))),
        // Verbatim, so that numbers keep their digits; line breaks are blanks between its parts.
        Some(payload::Content::Json(text)) => ("payload", text.replace(['\n', '\r'], " ")),
        None => ("payload", "null".to_owned()),
    };
    let mut line = json!({
        "kind": "event",
        "room": event.room,
        "id": event.id,
        "eventName": event.event_name,
        "position": (event.offset > 0).then(|| place(&event.epoch, event.offset)),
        "previousOffset": event.previous_offset,
        "timeMs": event.time_ms,
        "actor": event.actor_user_id,
        "retention": event.retention().as_str_name().trim_start_matches("RETENTION_").to_ascii_lowercase(),
    })
    .to_string();
    line.truncate(line.len() - 1);
    line + &format!(",\"{key}\":{content}}}")
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected { user, .. } => write!(f, "# connected as {}", Shown(user)),
            Self::Joined { joined, resumed } => joined_text(f, joined, *resumed),
            Self::Event(event) => event_text(f, event),
            Self::Presence(delta) => presence_text(f, delta),
            Self::Gap { room, gap } => write!(
                f,
                "# {}: GAP, events after {} up to {} are missing",
                Shown(room),
                gap.after,
                gap.up_to
            ),
            Self::Notice { room: "", text } => write!(f, "# {}", Shown(text)),
            Self::Notice { room, text } => write!(f, "# {}: {}", Shown(room), Shown(text)),
            Self::Lost { reason, pause } => {
                write!(f, "# {}; again in {:.1} s", Shown(reason), pause.as_secs_f32())
            }
        }
    }
}

fn joined_text(f: &mut fmt::Formatter<'_>, joined: &Joined, resumed: bool) -> fmt::Result {
    write!(f, "# {}: ", Shown(&joined.room))?;
    match (resumed, joined.recovered) {
        (true, true) => write!(f, "recovered, {} missed events follow", joined.replayed)?,
        (true, false) => write!(
            f,
            "NOT recovered: what was missed is gone, read the state anew; {} last values follow",
            joined.replayed
        )?,
        (false, _) => write!(f, "joined, {} events follow", joined.replayed)?,
    }
    match &joined.head {
        Some(at) => write!(f, "; at {}/{}", at.epoch, at.offset),
        None => Ok(()),
    }
}

fn event_text(f: &mut fmt::Formatter<'_>, event: &Event) -> fmt::Result {
    let time = UNIX_EPOCH + Duration::from_millis(u64::try_from(event.time_ms).unwrap_or_default());
    let time = humantime::format_rfc3339_millis(time.min(SystemTime::now() + Duration::from_secs(3600)));
    write!(f, "{time} {} ", Shown(&event.room))?;
    match event.offset {
        0 => f.write_str("-")?,
        offset => write!(f, "{}/{offset}", event.epoch)?,
    }
    let actor = if event.actor_user_id.is_empty() {
        "-"
    } else {
        &event.actor_user_id
    };
    write!(f, " {} {} ", Shown(&event.event_name), Shown(actor))?;
    content_text(f, event.payload.as_ref())?;
    if event.retention() == Retention::LastValue {
        f.write_str(" (last value)")?;
    }
    Ok(())
}

fn content_text(f: &mut fmt::Formatter<'_>, payload: Option<&Payload>) -> fmt::Result {
    match payload.and_then(|payload| payload.content.as_ref()) {
        Some(payload::Content::Json(text)) => fmt::Display::fmt(&Shown(text), f),
        Some(payload::Content::Binary(bytes)) => write!(f, "base64:{}", STANDARD.encode(bytes)),
        None => Ok(()),
    }
}

fn presence_text(f: &mut fmt::Formatter<'_>, delta: &PresenceDelta) -> fmt::Result {
    write!(f, "# {}:", Shown(&delta.room))?;
    for member in &delta.joined {
        write!(f, " +{}", Shown(&member.user_id))?;
    }
    for user in &delta.left_user_ids {
        write!(f, " -{}", Shown(user))?;
    }
    write!(f, " ({} here)", delta.member_count)
}

/// Foreign text on one line, without characters that a terminal would obey.
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '\n' | '\r' | '\t' => f.write_str(" ")?,
                c if c.is_control() => write!(f, "\\u{:04x}", u32::from(c))?,
                c => write!(f, "{c}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_whatever_it_carries() {
        let event = Event {
            room: "project:7".to_owned(),
            event_name: "task:created".to_owned(),
            epoch: "00000000000000aa".to_owned(),
            offset: 5,
            time_ms: 1_700_000_000_123,
            actor_user_id: "ada".to_owned(),
            payload: Some(Payload {
                content: Some(payload::Content::Json("{\n \"a\": \"\u{9b}31m\"}".to_owned())),
            }),
            ..Event::default()
        };
        assert_eq!(
            Line::Event(&event).to_string(),
            "2023-11-14T22:13:20.123Z project:7 00000000000000aa/5 task:created ada {  \"a\": \"\\u009b31m\"}",
        );
    }
}

//! A member that polls: one request after the other, a POST where it has something to say, else a GET.

use super::super::super::frames::{HEAD_END, find};
use super::super::super::wire::SEPARATOR;
use super::super::ledger::Ledger;
use super::super::plan::Plan;
use super::{Connection, End, check_status};

/// The session of Engine.IO, and what is to be said in it.
#[derive(Debug, Default)]
pub(super) struct Polling {
    sid: String,
    /// Packets, each ended by a separator.
    packets: Vec<u8>,
}

impl Polling {
    pub(super) fn say(&mut self, packets: &[u8]) {
        self.packets.extend_from_slice(packets);
    }

    pub(super) fn opened(&mut self, sid: String) {
        self.sid = sid;
    }

    /// The next request.
    fn request(&mut self, host: &str) -> Vec<u8> {
        let sid = match self.sid.as_str() {
            "" => String::new(),
            sid => format!("&sid={sid}"),
        };
        let path = format!("/socket.io/?EIO=4&transport=polling{sid}");
        let packets = std::mem::take(&mut self.packets);
        let Some(body) = packets.strip_suffix(&[SEPARATOR]) else {
            return format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes();
        };
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: text/plain;charset=UTF-8\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), body].concat()
    }
}

impl Connection {
    /// Sends the next request.
    pub(super) fn poll(&mut self, plan: &Plan) -> Result<(), End> {
        match &mut self.polling {
            Some(polling) => {
                let request = polling.request(&plan.host);
                self.send(&request)
            }
            None => Ok(()),
        }
    }

    /// Reads a response, and sends the next request.
    pub(super) fn answered(&mut self, response: &[u8], plan: &Plan, ledger: &mut Ledger) -> Result<(), End> {
        check_status(response, b"200", plan)?;
        ledger.polls += 1;
        let body = find(response, HEAD_END).map_or(response.len(), |end| end + HEAD_END.len());
        for packet in response[body..].split(|byte| *byte == SEPARATOR) {
            let heard = plan.wire.hear(packet, &mut ledger.place);
            self.heard(heard, plan, ledger)?;
        }
        self.poll(plan)
    }
}

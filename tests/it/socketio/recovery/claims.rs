//! Who may come back to a session: its user with a token that is accepted, once, and with what it has really received.

use futures_util::future::join_all;
use roomcast::bus::history::{HistoryLimits, HistoryRules};
use roomcast::proto::v1;
use serde_json::json;

use super::{Carrier, Kept, Person, node, numbers, recovering, said};
use crate::socketio::speakers::{Wire, with_socketio};
use crate::support::{Encoding, Node, TENANT, revocation_of, user};

/// A session in the room `r` that has seen one event and missed another one.
async fn away(node: &Node) -> Kept {
    let mut ada = Person::begin(node, &user("ada")).await;
    ada.join("r").await;
    node.backend().publish("r", "said", json!({"n": 1})).await;
    assert_eq!(ada.event().await, said(1));
    let kept = ada.cut(node).await;
    node.backend().publish("r", "said", json!({"n": 2})).await;
    kept
}

#[tokio::test]
async fn a_claim_without_a_token_that_is_accepted_opens_and_ends_nothing() {
    let node = node().await;
    let kept = away(&node).await;
    let mut wire = Wire::open(&node).await;
    for (token, code) in [
        ("x".to_owned(), "unauthenticated"),
        (String::new(), "unauthenticated"),
        (user("ada").expires_in(-3600).token(), "token_expired"),
    ] {
        wire.say(&format!("40{}", kept.claim(&token))).await;
        let refused = wire.hear().await;
        assert!(refused.starts_with("44{") && refused.contains(code), "{refused}");
    }
    wire.close().await;
    let ada = Person::back(&node, &user("ada"), &kept).await;
    assert_eq!((ada.recovered, numbers(&ada.missed)), (true, vec![2]));
    ada.cut(&node).await;
    node.finish().await;
}

#[tokio::test]
async fn another_user_and_another_tenant_get_a_session_of_their_own() {
    let node = node().await;
    let kept = away(&node).await;
    for other in [user("bob"), user("ada").tenant("another")] {
        let person = Person::back(&node, &other, &kept).await;
        assert!(!person.recovered);
        person.cut(&node).await;
    }
    let ada = Person::back(&node, &user("ada"), &kept).await;
    assert!(ada.recovered);
    ada.cut(&node).await;
    node.finish().await;
}

#[tokio::test]
async fn a_session_one_of_whose_rooms_was_revoked_is_not_recovered() {
    let node = node().await;
    let kept = away(&node).await;
    let revoke = revocation_of("ada", v1::revoke_request::Scope::Room("r".to_owned()));
    node.backend().access.revoke(revoke).await.unwrap();
    let ada = Person::back(&node, &user("ada"), &kept).await;
    assert!(!ada.recovered);
    ada.cut(&node).await;
    node.finish().await;
}

#[tokio::test]
async fn a_client_that_was_away_beyond_the_history_is_not_recovered() {
    let node = Node::with(Encoding::Json, |config| {
        with_socketio(config, recovering);
        let limits = HistoryLimits {
            events_max: 2,
            ..Default::default()
        };
        config.bus.history = HistoryRules::new([], limits);
    })
    .await;
    let kept = away(&node).await;
    for n in 3..6 {
        node.backend().publish("r", "said", json!({"n": n})).await;
    }
    let mut ada = Person::back(&node, &user("ada"), &kept).await;
    assert!(!ada.recovered);
    // It is in no room, and may join anew.
    node.backend().publish("r", "said", json!({"n": 6})).await;
    ada.join("r").await;
    node.backend().publish("r", "said", json!({"n": 7})).await;
    assert_eq!(ada.event().await, said(7));
    // The new session is one to come back to. The offset it shows at first is of the old one.
    let again = Kept {
        offset: kept.offset.clone(),
        ..ada.cut(&node).await
    };
    node.backend().publish("r", "said", json!({"n": 8})).await;
    let ada = Person::back(&node, &user("ada"), &again).await;
    assert_eq!(
        (ada.recovered, numbers(&ada.missed)),
        (true, vec![7, 8]),
        "since its join"
    );
    ada.cut(&node).await;
    node.finish().await;
}

#[tokio::test]
async fn of_connections_that_claim_one_session_at_once_one_has_it() {
    let node = node().await;
    let kept = away(&node).await;
    let token = user("ada").token();
    let mut wires = join_all((0..8).map(|_| Wire::open(&node))).await;
    let claim = format!("40{}", kept.claim(&token));
    join_all(wires.iter_mut().map(|wire| wire.say(&claim))).await;
    // The last one that took it over has it; each that had it before was closed, with or without an answer.
    let sid = &*kept.sid;
    let ends = wires.into_iter().map(|mut wire| async move {
        let mut events = 0;
        loop {
            let Some(packet) = wire.hear_or_end().await else {
                return (false, false, events, wire);
            };
            if packet.starts_with("42[\"said\"") {
                events += 1;
            } else if let Some(answer) = packet.strip_prefix("40") {
                return (true, answer.contains(sid), events, wire);
            }
        }
    });
    let ends = join_all(ends).await;
    let mut live = 0;
    for (is_answered, is_recovered, events, mut wire) in ends {
        assert_eq!(
            events,
            usize::from(is_recovered),
            "what was missed comes with the session alone"
        );
        if is_answered && is_recovered {
            wire.say("422[\"roomcast:presence\",{\"room\":\"r\"}]").await;
            while let Some(packet) = wire.hear_or_end().await {
                if packet.starts_with("432[") {
                    live += 1;
                    break;
                }
            }
        }
    }
    assert_eq!(live, 1);
    node.finish().await;
}

#[tokio::test]
async fn events_that_wait_for_an_answer_that_was_lost_do_not_come_twice() {
    let node = node().await;
    let kept = away(&node).await;
    // Its answer is lost behind the event: the client holds the event back, and shows the same offset.
    let ada = Person::back(&node, &user("ada"), &kept).await;
    assert_eq!((ada.recovered, numbers(&ada.missed)), (true, vec![2]));
    ada.cut(&node).await;
    let again = Person::back(&node, &user("ada"), &kept).await;
    assert!(!again.recovered);
    again.cut(&node).await;
    node.finish().await;
}

#[tokio::test]
async fn a_client_that_has_left_or_was_sent_away_does_not_come_back_to_its_session() {
    let node = node().await;
    let mut ada = Person::begin(&node, &user("ada")).await;
    ada.join("r").await;
    ada.carrier.say("41").await;
    let (kept, carrier) = ada.vanish();
    let ada = Person::back_by(carrier, &user("ada"), &kept).await;
    assert!(!ada.recovered);
    let (kept, carrier) = ada.vanish();
    let kick = v1::DisconnectRequest {
        tenant: TENANT.to_owned(),
        session: Some(v1::disconnect_request::Session::ConnectionId(kept.sid.clone())),
        ..Default::default()
    };
    node.backend().connections.disconnect(kick).await.unwrap();
    assert!(!Person::back(&node, &user("ada"), &kept).await.recovered);
    drop(carrier);
    node.finish().await;
}

#[tokio::test]
async fn a_session_that_was_recovered_is_addressed_by_its_id() {
    let node = node().await;
    let kept = away(&node).await;
    let mut ada = Person::back_by(Carrier::open(&node, true).await, &user("ada"), &kept).await;
    assert!(ada.recovered);
    let join = v1::JoinRoomRequest {
        tenant: TENANT.to_owned(),
        room: "granted".to_owned(),
        member: Some(v1::join_room_request::Member::ConnectionId(kept.sid.clone())),
        ..Default::default()
    };
    node.backend().rooms.join_room(join).await.unwrap();
    assert_eq!(ada.any_event().await.name, "roomcast:connected");
    let joined = ada.any_event().await;
    assert_eq!(joined.name, "roomcast:roomJoined");
    assert!(joined.payload.to_string().contains("\"granted\""), "{}", joined.payload);
    ada.cut(&node).await;
    node.finish().await;
}

//! What is sent to clients that can come back, and how they do.

use std::time::Duration;

use roomcast::proto::v1;
use serde_json::json;

use super::{Carrier, Kept, Person, event, node, numbers, recovering, said};
use crate::socketio::speakers::{self, Wire, command_packet, connect_packet, with_socketio};
use crate::support::{Encoding, Node, draft, to_room, user};

#[tokio::test]
async fn without_the_setting_nothing_of_it_is_sent() {
    let node = speakers::node().await;
    let mut wire = Wire::open(&node).await;
    let claim = json!({"token": user("ada").token(), "pid": "AAAAAAAAAAAAAAAAAAAAAA", "offset": "AQA"});
    wire.say(&format!("40{claim}")).await;
    let connected = wire.hear().await;
    assert!(
        connected.starts_with("40{\"sid\":\"") && !connected.contains("pid"),
        "{connected}"
    );
    wire.command(1, "join", &json!({"room": "r"})).await;
    node.backend().publish("r", "said", json!({"n": 1})).await;
    assert_eq!(wire.hear().await, "42[\"said\",{\"n\":1}]");
    wire.close().await;
    node.finish().await;
}

#[tokio::test]
async fn every_event_has_an_offset_and_no_acknowledgement_has() {
    let node = node().await;
    for polls in [false, true] {
        let mut ada = Person::begin_by(Carrier::open(&node, polls).await, &user("ada")).await;
        let mut carrier = ada.carrier;
        carrier
            .say(&command_packet(0, "join", &json!({"room": "r", "presence": "counts"})))
            .await;
        let joined = carrier.hear().await;
        assert!(
            joined.starts_with("430[{\"ok\":true,") && joined.ends_with("}]"),
            "{joined}"
        );
        let backend = node.backend();
        backend.publish("r", "said", json!({"n": 1})).await;
        let (heard, first) = event(&carrier.hear().await).unwrap();
        assert_eq!(heard, said(1));
        // One without a position: the offset stays where it is.
        let mut ephemeral = draft("typing", json!("connected"));
        ephemeral.targets = vec![to_room("r")];
        ephemeral.set_retention(v1::Retention::Ephemeral);
        backend.send(ephemeral).await.unwrap();
        let (heard, second) = event(&carrier.hear().await).unwrap();
        assert_eq!((heard.name.as_str(), &second), ("typing", &first));
        // The gateway's own.
        let other = node.connect(user("bob")).await;
        let mut other = other;
        other.join("r").await;
        let (heard, _) = event(&carrier.hear().await).unwrap();
        assert_eq!(heard.name, "roomcast:presenceDelta");
        other.close().await;
        let (heard, _) = event(&carrier.hear().await).unwrap();
        assert_eq!(heard.name, "roomcast:presenceDelta");
        carrier.say("42[\"nobody\"]").await;
        let (heard, _) = event(&carrier.hear().await).unwrap();
        assert_eq!(heard.name, "roomcast:error");
        ada.carrier = carrier;
        ada.cut(&node).await;
    }
    node.finish().await;
}

#[tokio::test]
async fn a_binary_event_has_its_offset_in_front_of_the_attachment() {
    let node = node().await;
    let mut wire = Wire::open(&node).await;
    wire.say(&connect_packet(&user("ada"))).await;
    wire.hear().await;
    wire.say_all(&["420[\"roomcast:join\",{\"room\":\"r\"}]"]).await;
    wire.hear().await;
    wire.say("451-1[\"roomcast:publish\",{\"room\":\"r\",\"eventName\":\"file\",\"payload\":{\"_placeholder\":true,\"num\":0}}]")
        .await;
    wire.say_bytes(b"\x04bytes").await;
    let mut packets = vec![wire.hear().await];
    if packets[0].starts_with("451-") {
        assert_eq!(wire.hear_bytes().await, b"\x04bytes");
        packets.push(wire.hear().await);
    } else {
        packets.insert(0, wire.hear().await);
        assert_eq!(wire.hear_bytes().await, b"\x04bytes");
    }
    let head = "451-[\"file\",{\"_placeholder\":true,\"num\":0},\"";
    assert!(
        packets[0].starts_with(head) && packets[0].ends_with("\"]"),
        "{packets:?}"
    );
    assert!(packets[1].starts_with("431[{\"ok\":true,"), "{packets:?}");
    wire.close().await;
    node.finish().await;
}

#[tokio::test]
async fn a_client_that_was_cut_off_has_the_events_of_all_its_rooms_before_its_answer() {
    misses_nothing(&[(false, false), (false, true), (true, false), (true, true)]).await;
}

pub async fn misses_nothing(carriers: &[(bool, bool)]) {
    let node = node().await;
    let backend = node.backend();
    for &(polls, polls_then) in carriers {
        let mut ada = Person::begin_by(Carrier::open(&node, polls).await, &user("ada")).await;
        for room in ["a", "b", "c"] {
            ada.join(room).await;
        }
        backend.publish("a", "said", json!({"n": 1})).await;
        assert_eq!(ada.event().await, said(1));
        let kept = ada.cut(&node).await;
        for (n, room) in [(2, "b"), (3, "a"), (4, "b"), (5, "d")] {
            backend.publish(room, "said", json!({"n": n})).await;
        }
        let mut ada = Person::back_by(Carrier::open(&node, polls_then).await, &user("ada"), &kept).await;
        assert!(ada.recovered);
        assert_eq!(ada.missed, [said(3), said(2), said(4)], "by room, each in its order");
        backend.publish("c", "said", json!({"n": 6})).await;
        assert_eq!(ada.event().await, said(6), "it is a member as before");
        // Once more, with nothing missed.
        let kept = ada.cut(&node).await;
        let ada = Person::back(&node, &user("ada"), &kept).await;
        assert!(ada.recovered && ada.missed.is_empty());
        ada.cut(&node).await;
    }
    node.finish().await;
}

#[tokio::test]
async fn a_client_that_has_received_no_event_yet_goes_on_from_its_joins() {
    goes_on_from_its_joins().await;
}

pub async fn goes_on_from_its_joins() {
    let node = node().await;
    let mut ada = Person::begin(&node, &user("ada")).await;
    node.backend().publish("a", "said", json!({"n": 1})).await;
    ada.join("a").await;
    let kept = ada.cut(&node).await;
    assert_eq!(kept.offset, None);
    node.backend().publish("a", "said", json!({"n": 2})).await;
    let mut ada = Person::back(&node, &user("ada"), &kept).await;
    assert_eq!((ada.recovered, numbers(&ada.missed)), (true, vec![2]));
    // A room that was joined behind the last event.
    ada.join("b").await;
    let kept = ada.cut(&node).await;
    node.backend().publish("b", "said", json!({"n": 3})).await;
    let ada = Person::back(&node, &user("ada"), &kept).await;
    assert_eq!((ada.recovered, numbers(&ada.missed)), (true, vec![3]));
    ada.cut(&node).await;
    node.finish().await;
}

#[tokio::test]
async fn an_open_transport_is_closed_first_and_presence_sees_nothing_of_it() {
    is_fenced_unseen(&[false, true]).await;
}

pub async fn is_fenced_unseen(carriers: &[bool]) {
    let node = Node::with(Encoding::Json, |config| {
        with_socketio(config, recovering);
        config.presence.leave_grace = Duration::from_secs(3);
    })
    .await;
    let mut watcher = node.connect(user("eve")).await;
    for &polls in carriers {
        let mut ada = Person::begin_by(Carrier::open(&node, polls).await, &user("ada")).await;
        ada.command("join", &json!({"room": "r", "state": {"mood": "fine"}}))
            .await;
        let before = watcher.join_to_see("r").await;
        assert_eq!(before.members.len(), 2);
        let (kept, old) = ada.vanish();
        let ada = Person::back(&node, &user("ada"), &kept).await;
        assert!(ada.recovered);
        match old {
            Carrier::Wire(mut wire) => assert_eq!(wire.close_code().await, 4004),
            Carrier::Poller(poller, _) => assert_eq!(poller.try_poll().await.0, 400),
        }
        assert_eq!(node.connections(), 2, "the watcher and one of hers");
        node.backend().publish("r", "end", json!(null)).await;
        watcher.expect_nothing_before("end").await;
        let after = watcher.join_to_see("r").await;
        assert_eq!(after.members, before.members);
        ada.cut(&node).await;
    }
    watcher.close().await;
    node.finish().await;
}

#[tokio::test]
async fn each_namespace_comes_back_to_a_session_of_its_own() {
    let node = node().await;
    let mut wire = Wire::open(&node).await;
    let connect = |namespace: &str, data: serde_json::Value| format!("40{namespace}{data}");
    let token = user("ada").token();
    let mut kept = Vec::new();
    for namespace in ["", "/custom,"] {
        wire.say(&connect(namespace, json!({"token": token}))).await;
        let answer = wire.hear().await;
        let answer: serde_json::Value =
            serde_json::from_str(answer.strip_prefix(&format!("40{namespace}")).unwrap()).unwrap();
        kept.push(Kept {
            sid: answer["sid"].as_str().unwrap().to_owned(),
            pid: answer["pid"].as_str().unwrap().to_owned(),
            offset: None,
        });
        wire.say(&format!("42{namespace}0[\"roomcast:join\",{{\"room\":\"r\"}}]"))
            .await;
        wire.hear().await;
    }
    wire.cut().await;
    node.until_connections(0).await;
    node.backend().publish("r", "said", json!({"n": 1})).await;
    let mut wire = Wire::open(&node).await;
    // A secret is for its namespace.
    wire.say(&connect("/custom,", kept[0].claim(&token))).await;
    let foreign = wire.hear().await;
    assert!(
        foreign.starts_with("40/custom,{\"sid\":") && !foreign.contains(&kept[0].sid),
        "{foreign}"
    );
    wire.say("41/custom,").await;
    for (namespace, kept) in ["/custom,", ""].into_iter().zip([&kept[1], &kept[0]]) {
        wire.say(&connect(namespace, kept.claim(&token))).await;
        let missed = wire.hear().await;
        assert!(
            missed.starts_with(&format!("42{namespace}[\"said\",{{\"n\":1}},\"")),
            "{missed}"
        );
        let answer = wire.hear().await;
        assert_eq!(
            answer,
            format!("40{namespace}{{\"sid\":\"{}\",\"pid\":\"{}\"}}", kept.sid, kept.pid)
        );
        let rooms = wire.hear().await;
        assert!(
            rooms.starts_with(&format!("42{namespace}[\"roomcast:connected\",")),
            "{rooms}"
        );
    }
    wire.close().await;
    node.finish().await;
}

// Every cut there is, while others publish: each event arrives once, and each room's in order.
#[tokio::test]
async fn cut_at_every_event_of_a_run_a_client_has_each_event_once_and_in_order() {
    is_cut_at_every_event(true).await;
}

pub async fn is_cut_at_every_event(may_poll: bool) {
    const EVENTS: u64 = 60;
    let node = node().await;
    let backend = node.backend();
    let publishing = async {
        for n in 0..EVENTS {
            backend
                .publish(if n % 3 == 0 { "a" } else { "b" }, "said", json!({"n": n}))
                .await;
        }
    };
    let mut person = Person::begin(&node, &user("ada")).await;
    person.join("a").await;
    person.join("b").await;
    let coming_back = async {
        let (mut heard, mut cuts, mut old) = (Vec::new(), 0, Vec::new());
        while heard.len() < usize::try_from(EVENTS).unwrap() {
            heard.extend(numbers(&[person.event().await]));
            // The gateway notices the cut before or after it has the next transport, or by that alone.
            cuts += 1;
            let kept = if cuts % 3 == 0 {
                let (kept, transport) = person.vanish();
                old.push(transport);
                kept
            } else {
                person.drop_off().await
            };
            let carrier = Carrier::open(&node, may_poll && cuts % 2 == 0).await;
            person = Person::back_by(carrier, &user("ada"), &kept).await;
            assert!(person.recovered, "behind {} events", heard.len());
            heard.extend(numbers(&person.missed));
        }
        (person, heard)
    };
    let ((), (person, heard)) = tokio::join!(publishing, coming_back);
    for is_of_a in [true, false] {
        let expected: Vec<u64> = (0..EVENTS).filter(|n| (n % 3 == 0) == is_of_a).collect();
        let got: Vec<u64> = heard.iter().copied().filter(|n| (n % 3 == 0) == is_of_a).collect();
        assert_eq!(got, expected);
    }
    person.drop_off().await;
    node.finish().await;
}

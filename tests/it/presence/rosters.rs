//! Rosters over nodes: everyone who is there, or said to be partial; and none who was there is told as joined.

use std::sync::Arc;

use super::*;
use crate::support::nats::NatsServer;
use crate::support::{Caller, Gateway, GatewayOptions, Opening, ROOT};

/// The first replies of which one is complete.
const REPLIES_MAX: usize = 20;

over_encodings! {
    each_sees_those_before_and_is_told_of_those_after,
}

#[tokio::test]
async fn each_sees_those_before_over_nodes_in_protobuf() {
    over_nats(each_sees_those_before_and_is_told_of_those_after(Encoding::Protobuf)).await;
}

#[tokio::test]
async fn each_sees_those_before_over_three_nodes() {
    let server = NatsServer::start().await;
    let url = server.url();
    let node = Node::several(Encoding::Json, 3, move |config| {
        config.nats.as_mut().unwrap().servers = vec![url.clone()];
    });
    join_one_by_one(node.await).await;
}

async fn each_sees_those_before_and_is_told_of_those_after(encoding: Encoding) {
    join_one_by_one(Node::start(encoding).await).await;
}

/// Each joins right after the reply to the one before, at the next node.
async fn join_one_by_one(node: Node) {
    let names: Vec<String> = (0..9).map(|number| format!("user {number}")).collect();
    let mut clients = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let mut client = node.connect(user(name)).await;
        let presence = client.join_to_see("r").await;
        let is_partial = presence.partial;
        let known = Known::from(presence);
        if !is_partial {
            assert_eq!(
                known.members.keys().collect::<Vec<_>>(),
                names[..=number].iter().collect::<Vec<_>>()
            );
        }
        let asked = query(&mut client, "r").await;
        assert!(asked.partial || asked.members.len() == number + 1, "{asked:?}");
        clients.push((client, known));
    }
    for (number, (client, known)) in clients.iter_mut().enumerate() {
        known.until(client, |known| known.count == 9).await;
        let came: Vec<&String> = known.came.keys().collect();
        assert!(
            came.iter().all(|name| !names[..=number].contains(name)),
            "{number}: {came:?}"
        );
        assert!(known.came.values().all(|times| *times == 1));
    }
    // Nodes that know each other answer: of a few first replies one is complete, however busy the machine is.
    let mut late = node.connect(user("user 9")).await;
    let mut partial = 0;
    loop {
        let presence = late.join_to_see("r").await;
        if !presence.partial {
            break assert_eq!(Known::from(presence).members.len(), 10);
        }
        partial += 1;
        assert!(partial < REPLIES_MAX, "every first reply is partial");
        late.leave("r").await;
    }
    node.finish().await;
}

async fn gateways(server: &NatsServer) -> Vec<Gateway> {
    let mut gateways = Vec::new();
    for name in ["one", "two", "three"] {
        let config = format!("[nats]\nservers = [\"{}\"]\npartitions = 3", server.url());
        let gateway = Gateway::start(GatewayOptions {
            name: name.to_owned(),
            config,
            ..GatewayOptions::default()
        });
        gateways.push(gateway.await);
    }
    gateways
}

#[tokio::test]
async fn a_roster_without_a_stopped_node_is_partial() {
    let server = NatsServer::start().await;
    let gateways = gateways(&server).await;
    for (encoding, room) in [(Encoding::Json, "r"), (Encoding::Protobuf, "s")] {
        let connect = async |at: usize, name: &str| {
            let opening = Opening::new(gateways[at].clients(), encoding, Arc::default());
            opening.connect(user(name)).await
        };
        let mut ada = connect(0, "ada").await;
        ada.join(room).await;
        let mut eve = connect(2, "eve").await;
        eve.join(room).await;
        let backend = Caller::new(gateways[1].channel(), ROOT);
        eventually("the nodes to know each other", || async {
            let stats = backend.stats(room).await;
            (stats.member_count == 2 && !stats.partial).then_some(())
        })
        .await;

        gateways[0].pause().await;
        let mut ben = connect(1, "ben").await;
        let presence = ben.join_to_see(room).await;
        assert!(presence.partial, "{presence:?}");
        assert!(
            presence.members.iter().all(|member| member.user_id != "ada"),
            "{presence:?}"
        );
        let mut known = Known::from(presence);
        // The others wait once, and are told the same.
        let asked = query(&mut ben, room).await;
        assert!(asked.partial, "{asked:?}");
        let request = v1::ListMembersRequest {
            tenant: TENANT.to_owned(),
            room: room.to_owned(),
            ..Default::default()
        };
        let listed = backend.rooms.clone().list_members(request).await.unwrap().into_inner();
        assert!(listed.partial && backend.stats(room).await.partial);
        assert_eq!(backend.publish(room, "said", json!({})).await.reached, None);
        for push in until_event(&mut ben, "said").await {
            match push {
                Said::PresenceDelta(delta) => known.apply(delta),
                other => panic!("a change of presence: {other:?}"),
            }
        }
        gateways[0].resume();

        known.until(&mut ben, |known| known.count == 3).await;
        assert_eq!(known.found, ["ada"], "told as present, and once");
        assert!(!known.came.contains_key("ada") && !known.came.contains_key("eve"));
        eventually("a complete answer", || async {
            let stats = backend.stats(room).await;
            (!stats.partial).then(|| assert_eq!(stats.member_count, 3))
        })
        .await;
        eventually("the number of those reached", || async {
            let reached = backend.publish(room, "again", json!({})).await.reached;
            assert!(reached.is_none_or(|reached| reached == 3), "{reached:?}");
            reached
        })
        .await;
        for client in [ada, eve, ben] {
            client.crash();
        }
    }
}

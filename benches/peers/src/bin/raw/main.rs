//! The limit: one thread, one epoll set, one `write()` of a ready frame per socket.
//!
//! A frame is made once per room and handed to the kernel once per member, straight from the loop that read the control
//! connection: no task, no lock, no copy, no queue unless a socket would block. Frames for one room that arrived together
//! are one write per socket. Who compares a gateway with it should know what it leaves out: tokens, permissions, history,
//! heartbeats, bounds, and fairness between rooms. A room of any size is served in one go.
//!
//! Tuned: `TCP_NODELAY`; edge-triggered, registered once per socket; all that is there is read in one call.

mod backlog;
mod rooms;
mod server;
mod wire;

use std::io;

fn main() -> io::Result<()> {
    let ports = roomcast_peers::Ports::of_process();
    let members = roomcast_peers::listen(ports.members)?;
    let control = roomcast_peers::listen(ports.control)?;
    roomcast_peers::announce_rooms("/", &members, &control)?;
    server::Server::new(members, control)?.run()
}

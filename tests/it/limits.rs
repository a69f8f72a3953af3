//! Bad input and abuse: each limit a native client or a caller of gRPC can hit, its answer, and that nobody else is hurt.
//!
//! | who | does what | where |
//! |---|---|---|
//! | a connection | says nothing, says it slowly, says too much before the upgrade | `upgrade` |
//! | a browser | comes from a foreign page | `upgrade`, `cors` |
//! | a connection | keeps its place between requests, sends or reads slowly, too much, or many at once | `http` |
//! | a user, an address, everybody | opens too many connections | `upgrade` |
//! | a client | shows no token, a wrong one, an old one, two | `session` |
//! | a client | breaks RFC 6455, sends too much at once, too slowly, or what cannot be read | `frames` |
//! | a client | pings without end, or gives no sign of life | `frames` |
//! | a client | does not read | `slow` |
//! | a client | joins, publishes, asks or changes its state too often | `abuse` |
//! | a client, a backend | names what no room and no event is called | `names` |
//! | a client | says more than the contract allows, by one | `bounds` |
//! | a client | asks for what it may not see, before and after it was revoked | `permission`, `orders::revoke` |
//! | a client | comes back from nowhere | `resume` |
//! | a backend | has no right, no deadline, too much, a key too long | `grpc` |
//! | an authorizer | is slow, away or confused | `permission::application` |

mod abuse;
mod bounds;
mod cors;
mod frames;
mod grpc;
mod http;
mod names;
mod slow;
mod upgrade;

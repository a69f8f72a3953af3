//! Bad input and abuse: each row a native client or a caller of gRPC can hit, its answer, and that nothing else is hurt.
//! The numbers are the rows of the table the limits were designed from.

mod abuse;
mod frames;
mod grpc;
mod names;
mod slow;
mod upgrade;

//! The rooms of one shard: their members, and the fan-out in chunks.

//! The heap bytes of a session at rest, exactly: every live allocation is counted, and named by where it was made.
//!
//! Opens so many sessions, lets them come to rest, and does it again with more: what grew, divided by the sessions that
//! came on top, is what one costs. Each session has a verified token, whose claims are kept, and is in two rooms: one of
//! 1,000 members, one of 10, with presence. Sockets, their outboxes and the kernel's part are not in it.
//!
//! ```sh
//! make bench-memory                                          # 1,000 and 11,000 sessions
//! cargo bench --profile dev --bench memory -- 7000 14000     # others
//! ```
//!
//! Without optimization, because inlined functions would hide whose an allocation is.

mod support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use roomcast::shard::Key;
use serde::Deserialize;
use support::{Encoding, Shard};
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// The members of a client's large room and of its small one.
const LARGE: u32 = 1_000;
const SMALL: u32 = 10;

/// Sites below this many bytes per session are summed up in one line.
const SHOWN_BYTES_MIN: f64 = 1.0;

/// The places shown of what is left when everybody has gone.
const LEFT_SHOWN_MAX: usize = 12;

fn main() {
    let mut counts: Vec<u32> = std::env::args().filter_map(|text| text.parse().ok()).collect();
    // A member of a small room sees who comes and goes there. `--watch-none`: presence is kept, nobody looks.
    let watch = !std::env::args().any(|option| option == "--watch-none");
    if counts.len() != 2 {
        counts = vec![1_000, 11_000];
    }
    counts.sort_unstable();
    let (fewer, more) = (Heap::of(counts[0], watch), Heap::of(counts[1], watch));
    print!("{}", report(&fewer, &more));
    let ([before, meanwhile, after], left) = left_behind(counts[1], watch);
    println!(
        "\n{} sessions came and went: {before} bytes before, {meanwhile} at rest, {after} when all had gone. Of these:",
        counts[1]
    );
    let mut left: Vec<(String, Live)> = left.into_iter().collect();
    left.sort_by(|(_, one), (_, other)| other.bytes.total_cmp(&one.bytes));
    for (site, live) in left.iter().take(LEFT_SHOWN_MAX) {
        println!("{:13} bytes in {:6} blocks  {site}", live.bytes, live.blocks);
    }
}

/// The live heap with a number of sessions at rest.
struct Heap {
    sessions: u32,
    bytes: usize,
    blocks: usize,
    sites: BTreeMap<String, Live>,
}

/// What is live of one place that allocates.
#[derive(Debug, Clone, Copy, Default)]
struct Live {
    bytes: f64,
    blocks: f64,
}

impl Heap {
    fn of(sessions: u32, watch: bool) -> Self {
        let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("memory-{sessions}.json"));
        let profiler = dhat::Profiler::builder()
            .file_name(&file)
            .trim_backtraces(Some(40))
            .build();
        // The profiler writes what is live when it ends, so it ends while the sessions are open.
        let (shard, stats) = with_presence(async |shard| {
            arrive(shard, sessions, watch).await;
            dhat::HeapStats::get()
        });
        drop(profiler);
        drop(shard);
        Self {
            sessions,
            bytes: stats.curr_bytes,
            blocks: stats.curr_blocks,
            sites: sites(&std::fs::read(&file).expect("the profile was written")),
        }
    }
}

/// The live bytes of a shard before the first of so many sessions comes, with all at rest, and after the last has gone;
/// and where those that are left were allocated.
fn left_behind(sessions: u32, watch: bool) -> ([usize; 3], BTreeMap<String, Live>) {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("memory-left.json");
    let profiler = dhat::Profiler::builder()
        .file_name(&file)
        .trim_backtraces(Some(40))
        .build();
    let live = || dhat::HeapStats::get().curr_bytes;
    let (shard, bytes) = with_presence(async |shard| {
        rest(shard, &[]).await;
        let before = live();
        let keys = arrive(shard, sessions, watch).await;
        let meanwhile = live();
        for key in keys {
            shard.disconnect(key);
        }
        rest(shard, &[]).await;
        [before, meanwhile, live()]
    });
    drop(profiler);
    drop(shard);
    let left = sites(&std::fs::read(&file).expect("the profile was written"));
    (bytes, left)
}

/// Runs something on a shard of its own with presence at work. Time stands still but for what this thread sleeps.
fn with_presence<T>(work: impl AsyncFnOnce(&mut Shard) -> T) -> (Shard, T) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime can be built");
    runtime.block_on(async {
        let (mut shard, stop) = (Shard::new(), CancellationToken::new());
        let presence = runtime.spawn(shard.run_presence(stop.clone()));
        let done = work(&mut shard).await;
        stop.cancel();
        presence.await.expect("presence ends");
        (shard, done)
    })
}

/// Opens sessions, has them join their rooms, and lets them come to rest.
async fn arrive(shard: &mut Shard, sessions: u32, watch: bool) -> Vec<Key> {
    let mut keys = Vec::with_capacity(sessions as usize);
    for number in 0..sessions {
        let key = shard.connect(number, Encoding::Json);
        shard.join(key, &format!("room:large-{}", number / LARGE), false);
        shard.join(key, &format!("room:small-{}", number / SMALL), watch);
        keys.push(key);
    }
    rest(shard, &keys).await;
    for key in &keys {
        assert!(shard.frames(*key) >= 3, "connected and joined twice");
    }
    keys
}

/// Lets time pass in which nobody does anything but give signs of life.
async fn rest(shard: &mut Shard, keys: &[Key]) {
    const QUIET_S: u32 = 90;
    for _ in 0..QUIET_S {
        tokio::time::sleep(Duration::from_secs(1)).await;
        shard.handle_all();
        for key in keys {
            shard.sessions.seen(*key);
        }
        shard.sessions.tick();
        assert!(shard.sessions.take_closed().is_empty(), "everybody stays");
    }
}

/// The part of a profile that is used here (DHAT's file format, version 2).
#[derive(Deserialize)]
struct Profile {
    #[serde(rename = "ftbl")]
    frames: Vec<String>,
    #[serde(rename = "pps")]
    points: Vec<Point>,
}

/// One stack that allocated: what of it was live at the end, and its frames, innermost first.
#[derive(Deserialize)]
struct Point {
    #[serde(rename = "eb")]
    bytes: u32,
    #[serde(rename = "ebk")]
    blocks: u32,
    #[serde(rename = "fs")]
    stack: Vec<usize>,
}

fn sites(profile: &[u8]) -> BTreeMap<String, Live> {
    let profile: Profile = serde_json::from_slice(profile).expect("the profile is readable");
    let mut sites: BTreeMap<String, Live> = BTreeMap::new();
    for point in profile.points.iter().filter(|point| point.bytes > 0) {
        let live = sites.entry(site(&profile.frames, &point.stack)).or_default();
        live.bytes += f64::from(point.bytes);
        live.blocks += f64::from(point.blocks);
    }
    sites
}

/// The innermost two functions of ours on a stack.
fn site(frames: &[String], stack: &[usize]) -> String {
    let frames = stack.iter().map(|index| frames[*index].as_str());
    let ours: Vec<&str> = frames.filter_map(of_ours).take(2).collect();
    if ours.is_empty() {
        "elsewhere".to_owned()
    } else {
        ours.join(" < ")
    }
}

/// `0x1234: roomcast::a::b::c (src/a/b.rs:12:34)` as `a::b::c:12`; `None` for functions of others.
fn of_ours(frame: &str) -> Option<&str> {
    let (_, named) = frame.split_once(": ")?;
    let is_ours = named.starts_with("roomcast::") || named.starts_with("<roomcast::");
    is_ours.then_some(named)
}

fn report(fewer: &Heap, more: &Heap) -> String {
    let added = f64::from(more.sessions - fewer.sessions);
    let mut rows: Vec<(&str, Live)> = more
        .sites
        .iter()
        .map(|(site, live)| {
            let before = fewer.sites.get(site).copied().unwrap_or_default();
            let grown = Live {
                bytes: (live.bytes - before.bytes) / added,
                blocks: (live.blocks - before.blocks) / added,
            };
            (site.as_str(), grown)
        })
        .collect();
    rows.sort_by(|(_, one), (_, other)| other.bytes.total_cmp(&one.bytes));
    let mut text = String::from("bytes/session  blocks/session  bytes/block  allocated in\n");
    let (mut rest, mut malloc) = (Live::default(), 0.0);
    for (site, live) in rows {
        malloc += live.bytes + live.blocks * malloc_extra(live);
        if live.bytes < SHOWN_BYTES_MIN {
            rest.bytes += live.bytes;
            rest.blocks += live.blocks;
        } else {
            line(&mut text, live, site);
        }
    }
    line(&mut text, rest, "(all others)");
    let slope = |more: usize, fewer: usize| {
        let grown = u32::try_from(more - fewer).expect("the heap is smaller than 4 GiB");
        f64::from(grown) / added
    };
    let total = Live {
        bytes: slope(more.bytes, fewer.bytes),
        blocks: slope(more.blocks, fewer.blocks),
    };
    line(&mut text, total, "in all");
    writeln!(
        text,
        "\n{} sessions: {} bytes in {} blocks; {} sessions: {} bytes in {} blocks.\nWith an allocator that adds 8 bytes \
         and rounds up to 16 (glibc's): {malloc:.0} bytes per session.",
        fewer.sessions, fewer.bytes, fewer.blocks, more.sessions, more.bytes, more.blocks,
    )
    .expect("a string takes everything");
    text
}

fn line(text: &mut String, live: Live, site: &str) {
    let Live { bytes, blocks } = live;
    let each = if blocks > 0.0 { bytes / blocks } else { 0.0 };
    writeln!(text, "{bytes:13.1}  {blocks:14.3}  {each:11.0}  {site}").expect("a string takes everything");
}

/// What glibc's malloc takes for a block of this size on top of it.
fn malloc_extra(live: Live) -> f64 {
    if live.blocks <= 0.0 {
        return 0.0;
    }
    let each = live.bytes / live.blocks;
    (((each + 8.0) / 16.0).ceil() * 16.0).max(32.0) - each
}

//! The shaper beside the kernel's own, where root, network namespaces and `tc` are there; elsewhere the test says what is
//! missing and passes.
//!
//! The kernel shapes the loopback device of a namespace made for the test: `tbf` for bandwidth; `netem` for delay and jitter,
//! where the kernel has it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test's helpers may panic"
)]

use std::env;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use msao_link::shaper::End;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::support::{link, ms, transfer};

/// Set for the part that runs in the namespace, so that nobody changes their own loopback device with `--ignored`.
const INSIDE: &str = "MSAO_LINK_IN_NAMESPACE";
const BYTES: usize = 2_500_000;
/// Of a packet of 1500 bytes, what TCP carries; and what the device counts for it: its Ethernet header, and for every second
/// one an acknowledgement of 66 bytes, which goes through the same device.
const CARRIED: f64 = 1448.0 / (1514.0 + 33.0);

fn run(command: &str) -> Result<(), String> {
    let mut words = command.split(' ');
    let program = words.next().unwrap_or_default();
    let output = Command::new(program).args(words).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(format!("`{command}` failed: {said}"))
        }
        Err(error) => Err(format!("`{command}` could not be run: {error}")),
    }
}

#[test]
fn the_kernel_shapes_alike() {
    for needed in ["unshare -n true", "ip -V", "tc -V"] {
        if let Err(why) = run(needed) {
            println!("skipped: {why}; run this as root with iproute2 and network namespaces");
            return;
        }
    }
    let output = Command::new("unshare")
        .arg("-n")
        .arg(env::current_exe().unwrap())
        .args(["--exact", "kernel::inside", "--ignored", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    print!("{said}");
    // A name that no test has is no failure to the runner.
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

async fn connect() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (edge, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (edge, (cloud, _)) = (edge.unwrap(), accepted.unwrap());
    edge.set_nodelay(true).unwrap();
    cloud.set_nodelay(true).unwrap();
    (edge, cloud)
}

/// Round trips of a byte over a connection: their median and mean, in ms.
async fn round_trip(
    mut edge: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    mut cloud: TcpStream,
) -> (f64, f64) {
    tokio::spawn(async move {
        let mut byte = [0];
        while cloud.read_exact(&mut byte).await.is_ok() {
            let _ = cloud.write_all(&byte).await;
        }
    });
    let mut all = Vec::new();
    for _ in 0..100 {
        let sent = Instant::now();
        edge.write_all(&[1]).await.unwrap();
        edge.read_exact(&mut [0]).await.unwrap();
        all.push(ms(sent.elapsed()));
    }
    all.sort_by(f64::total_cmp);
    (all[50], all.iter().sum::<f64>() / 100.0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the other test, in a network namespace of its own"]
async fn inside() {
    if env::var_os(INSIDE).is_none() {
        println!("skipped: not in a namespace of its own; run `the_kernel_shapes_alike`");
        return;
    }
    run("ip link set lo mtu 1500 up").unwrap();
    bandwidth().await;
    delay().await;
}

async fn bandwidth() {
    for mbit in [10.0, 40.0] {
        let tbf = format!("tc qdisc add dev lo root tbf rate {mbit}mbit burst 16kb latency 300ms");
        if let Err(why) = run(&tbf) {
            println!("skipped: bandwidth beside tbf: {why}");
            return;
        }
        let (edge, cloud) = connect().await;
        let kernel = transfer(edge, cloud, BYTES).await;
        run("tc qdisc del dev lo root").unwrap();

        let link = link(&format!("up.bandwidth = '{mbit} Mbit/s'"));
        let (edge, cloud) = connect().await;
        let ours = transfer(link.wrap_tcp(edge, End::Edge), cloud, BYTES).await;

        let rate = |took: Duration| BYTES as f64 * 8.0 / took.as_secs_f64() / 1e6;
        let (kernel, ours) = (rate(kernel), rate(ours));
        println!(
            "{mbit} Mbit/s: tbf {kernel:.2} ({:.2} with headers), ours {ours:.2}",
            kernel / CARRIED
        );
        // Load may slow either down; neither gives more than it was asked, up to a burst and what a window estimate is off.
        assert!(ours <= mbit * 1.01 && kernel / CARRIED <= mbit * 1.05);
        assert!(ours >= mbit * 0.8 && kernel / CARRIED >= mbit * 0.8);
    }
}

async fn delay() {
    if let Err(why) = run("tc qdisc add dev lo root netem delay 10ms 2ms") {
        println!("skipped: delay beside netem: {why}");
        return;
    }
    let (edge, cloud) = connect().await;
    let kernel = round_trip(edge, cloud).await;
    run("tc qdisc del dev lo root").unwrap();

    let link = link(
        "up = { delay-ms = 10.0, jitter-ms = 2.0 }\ndown = { delay-ms = 10.0, jitter-ms = 2.0 }",
    );
    let (edge, cloud) = connect().await;
    let ours = round_trip(link.wrap_tcp(edge, End::Edge), cloud).await;
    println!("round trip of 20 ms, median and mean: netem {kernel:.2?}, ours {ours:.2?}");
    assert!((ours.0 - kernel.0).abs() < 5.0, "{ours:?} {kernel:?}");
}

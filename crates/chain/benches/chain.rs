//! Throughput of the chain beside the ordinary hash. `examples/ratios.rs` compares them where a machine's speed varies.

mod workload;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use shoal_types::Algorithm;
use workload::Workload;

fn chain(criterion: &mut Criterion) {
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let work = Workload::new(algorithm);
        let mut group = criterion.benchmark_group(algorithm.name());
        // 64 MiB take about 50 ms: 20 samples are some seconds.
        group.throughput(Throughput::Bytes(work.bytes())).sample_size(20);
        group.bench_function("one-shot hash", |bencher| bencher.iter(|| work.one_shot()));
        group.bench_function("in order", |bencher| bencher.iter(|| work.in_order()));
        for threads in [1, 2] {
            let name = format!("out of order, {threads} threads");
            group.bench_function(name, |bencher| bencher.iter(|| work.out_of_order(threads)));
        }
        group.finish();
    }
}

criterion_group!(benches, chain);
criterion_main!(benches);

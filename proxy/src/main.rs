//! The `outrigger` binary.
#[global_allocator]
static ALLOC: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let path = args
        .iter()
        .position(|a| a == "-c")
        .map(|i| args[i + 1].clone())
        .unwrap();
    let concurrency = args
        .iter()
        .position(|a| a == "--concurrency")
        .map_or(1, |i| args[i + 1].parse().unwrap());
    let file = std::fs::read(&path).unwrap();
    let loaded = xds_api::bootstrap::load(
        Some(xds_api::bootstrap::File::named(&path, &file)),
        None,
        xds_api::bootstrap::Options {
            allow_unknown: true,
            ..Default::default()
        },
    );
    let loaded = match loaded {
        Ok(l) => l,
        Err(e) => {
            eprintln!("{e:?}");
            std::process::exit(1)
        }
    };
    let store = outrigger_stats::Store::default();
    let registry = std::sync::Arc::new(outrigger_filters::Registry::default());
    let cx = outrigger_config::convert::ConvertContext {
        registry: &*registry,
        store: store.clone(),
        reject_unknown_fields: false,
    };
    let bootstrap = match outrigger_config::convert::bootstrap(&loaded.bytes, &cx) {
        Ok(b) => b.value,
        Err(e) => {
            eprintln!("{e}");
            std::process::exit(1)
        }
    };
    let access_logs = std::sync::Arc::new(
        outrigger::access_log::AccessLogManager::new(Default::default(), &store).unwrap(),
    );
    let settings = outrigger::server::main_thread::Settings {
        bootstrap,
        concurrency,
        reject_unknown_dynamic_fields: false,
        store,
        registry,
        access_logs,
        runtime: Default::default(),
    };
    let rt = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    if let Err(e) = rt.block_on(outrigger::server::main_thread::run(settings)) {
        eprintln!("{e}");
        std::process::exit(1)
    }
}

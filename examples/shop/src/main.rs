//! One worker of the shop. `lethe up examples/shop` starts it.

use lethe::problem::chain;
use shop::{config::Config, error::StartError, shop::Shop, web};

#[tokio::main]
async fn main() -> std::process::ExitCode {
    tracing_subscriber::fmt().with_target(false).with_ansi(false).init();
    match run().await {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", chain(&error));
            std::process::ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), StartError> {
    let config = Config::from_env()?;
    let state = lethe::State::from_env()?;
    let shop = Shop::open(&state, config).await?;
    tracing::info!(instance = shop.config.instance, "the shop opens");
    let admin = shop.clone();
    let seed = async move {
        if let Err(error) = admin.accounts.seed_admin(&admin.config).await {
            tracing::error!(error = chain(&error), "the admin's account could not be set up");
        }
    };
    if shop.accounts.exists(&shop.config.admin).await? {
        // Only a look whether the password is still the same, and that takes a while: visitors need not wait for it.
        tokio::spawn(seed);
    } else {
        seed.await;
    }
    shop.sessions.warm_up().await;
    lethe::serve(web::router(shop, &state)).await?;
    Ok(())
}

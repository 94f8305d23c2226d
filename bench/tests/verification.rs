//! A benchmark is worth only as much as its verification: every strategy passes it, every kind of damage fails it.

use std::time::{Duration, SystemTime};

use anyhow::Result;
use bench::contents::Contents;
use bench::strategy::{Job, Strategy};
use bench::table::Table;
use bench::traffic::{Tally, Traffic};
use postgres::Client;
use testenv::{Options, Server};

const DATABASE: &str = "postgres";
const CLIENT_SIDE: [Strategy; 4] = [
    Strategy::Update,
    Strategy::Limit,
    Strategy::KeyRanges,
    Strategy::CtidRanges,
];

fn table() -> Table {
    Table {
        name: "t".into(),
        rows: 2_000,
        indexes: 1,
        row_width: 100,
    }
}

fn load(client: &mut Client) -> Result<Contents> {
    client.batch_execute("DROP TABLE IF EXISTS t")?;
    table().load(client)?;
    table().prepare(client, false)?;
    Contents::of(client, &table())
}

fn fill(client: &mut Client, strategy: Strategy) -> Result<()> {
    strategy.run(
        client,
        Job {
            table: "t",
            batch_size: 300,
            workers: 1,
        },
    )
}

#[test]
fn every_strategy_fills_all_and_damages_nothing() -> Result<()> {
    let server = Server::start(Options::default())?;
    let mut client = server.connect()?;
    for strategy in CLIENT_SIDE {
        let contents = load(&mut client)?;
        fill(&mut client, strategy)?;
        contents.verify(&mut client, &table(), &Tally::default())?;
    }
    Ok(())
}

#[test]
fn every_write_of_live_traffic_is_tallied() -> Result<()> {
    let server = Server::start(Options::default())?;
    let mut client = server.connect()?;
    let contents = load(&mut client)?;
    let traffic = Traffic {
        tps: 500,
        clients: 4,
        writes_column: true,
    };
    let load = traffic.start(&server, DATABASE, &table())?;
    let start = SystemTime::now();
    std::thread::sleep(Duration::from_secs(1));
    fill(&mut client, Strategy::KeyRanges)?;
    let log = load.settle_and_stop(start, SystemTime::now())?;
    log.ensure_complete()?;
    assert!(log.tally().rows > 0 && log.tally().amount > 0);
    contents.verify(&mut client, &table(), &log.tally())
}

#[test]
fn damage_is_found() -> Result<()> {
    let server = Server::start(Options::default())?;
    let mut client = server.connect()?;
    let damages = [
        (
            "UPDATE t SET status = NULL WHERE id = 7",
            "1 rows were not filled",
        ),
        (
            "UPDATE t SET status = 'active' WHERE id > 2000",
            "2 rows have a value that is not theirs",
        ),
        (
            "UPDATE t SET amount = amount - 1 WHERE id = 7",
            "writes of the application were lost",
        ),
        (
            "UPDATE t SET name = 'nobody' WHERE id = 7",
            "other columns were changed",
        ),
        (
            "DELETE FROM t WHERE id = 7",
            "the table should have 2002 rows",
        ),
    ];
    for (damage, complaint) in damages {
        let contents = load(&mut client)?;
        fill(&mut client, Strategy::Update)?;
        client.batch_execute(damage)?;
        let error = contents
            .verify(&mut client, &table(), &Tally::default())
            .expect_err(damage);
        assert!(error.to_string().starts_with(complaint), "{error}");
    }
    Ok(())
}

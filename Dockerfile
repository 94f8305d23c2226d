# PostgreSQL with the extension: its three files, and a script that creates it, are all that is added to the official image.

ARG POSTGRES_IMAGE=postgres:16-bookworm
ARG RUST_IMAGE=rust:1.95-bookworm

FROM ${RUST_IMAGE} AS rust

FROM ${POSTGRES_IMAGE} AS build
COPY --from=rust /usr/local/rustup /usr/local/rustup
COPY --from=rust /usr/local/cargo /usr/local/cargo
ENV RUSTUP_HOME=/usr/local/rustup CARGO_HOME=/usr/local/cargo PATH=/usr/local/cargo/bin:$PATH
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        build-essential ca-certificates clang libclang-dev "postgresql-server-dev-${PG_MAJOR}"
ENV PG_CONFIG=/usr/lib/postgresql/${PG_MAJOR}/bin/pg_config
# What pgrx reads instead of a configuration of its own.
ENV PGRX_PG_CONFIG_PATH=${PG_CONFIG}
WORKDIR /build
# First what changes rarely: the crates that this one is built of.
COPY Cargo.toml Cargo.lock ./
COPY bench/Cargo.toml bench/
COPY planner/Cargo.toml planner/
COPY testenv/Cargo.toml testenv/
COPY tests/Cargo.toml tests/
RUN folders='bench/src planner/src testenv/src tests src' \
    && mkdir -p $folders && for folder in $folders; do touch "$folder/lib.rs"; done \
    && cargo build --release --lib --no-default-features --features "pg${PG_MAJOR}"
COPY pg_safe_backfill.control ./
COPY scripts scripts
COPY sql sql
COPY planner planner
COPY src src
# Newer than what was built of nothing.
RUN touch src/lib.rs planner/src/lib.rs && PG_VERSION=${PG_MAJOR} scripts/install /package

FROM ${POSTGRES_IMAGE} AS db
COPY --from=build /package/ /
RUN echo 'CREATE EXTENSION pg_safe_backfill;' > /docker-entrypoint-initdb.d/pg_safe_backfill.sql

# Shows the three ways side by side on a server of its own, and draws the picture: docker compose run demo.
FROM build AS demo
COPY testenv testenv
COPY tests tests
COPY bench bench
RUN touch */src/lib.rs && cargo build --release --package bench --bin demo && cp -a /package/. /
ENV SAFE_BACKFILL_RUN_AS=postgres
ENTRYPOINT ["target/release/demo", "--picture", "/pictures"]

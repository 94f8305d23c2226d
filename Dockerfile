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
        build-essential ca-certificates clang libclang-dev libssl-dev pkg-config "postgresql-server-dev-${PG_MAJOR}"
RUN cargo install cargo-pgrx --version 0.18.1 --locked
RUN cargo pgrx init "--pg${PG_MAJOR}" "/usr/lib/postgresql/${PG_MAJOR}/bin/pg_config"
WORKDIR /build
COPY Cargo.toml Cargo.lock pg_safe_backfill.control ./
COPY bench bench
COPY planner planner
COPY sql sql
COPY src src
COPY testenv testenv
COPY tests tests
RUN cargo pgrx package --no-default-features --features "pg${PG_MAJOR}" \
        --pg-config "/usr/lib/postgresql/${PG_MAJOR}/bin/pg_config" \
    && mv "target/release/pg_safe_backfill-pg${PG_MAJOR}" /package

# Shows both ways side by side on a server of its own, and draws the picture: docker compose run demo.
FROM build AS demo
RUN cargo build --release --package bench --bin demo && cp -a /package/. /
ENV PG_CONFIG=/usr/lib/postgresql/${PG_MAJOR}/bin/pg_config SAFE_BACKFILL_RUN_AS=postgres
ENTRYPOINT ["target/release/demo", "--picture", "/pictures"]

FROM ${POSTGRES_IMAGE}
COPY --from=build /package/ /
RUN echo 'CREATE EXTENSION pg_safe_backfill;' > /docker-entrypoint-initdb.d/pg_safe_backfill.sql

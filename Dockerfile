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
COPY Cargo.toml Cargo.lock pg_safe_backfill.control ./
COPY bench bench
COPY planner planner
COPY scripts scripts
COPY sql sql
COPY src src
COPY testenv testenv
COPY tests tests
RUN PG_VERSION=${PG_MAJOR} scripts/install /package

# Shows the three ways side by side on a server of its own, and draws the picture: docker compose run demo.
FROM build AS demo
RUN cargo build --release --package bench --bin demo && cp -a /package/. /
ENV SAFE_BACKFILL_RUN_AS=postgres
ENTRYPOINT ["target/release/demo", "--picture", "/pictures"]

FROM ${POSTGRES_IMAGE}
COPY --from=build /package/ /
RUN echo 'CREATE EXTENSION pg_safe_backfill;' > /docker-entrypoint-initdb.d/pg_safe_backfill.sql

# Every recipe passes its arguments through: `just deploy --tenant ten_… --yes`. `just` itself is optional.
set positional-arguments

bin := "target/debug/systemprompt"

# What there is
default:
    @just --list

# Build the program once; the demo, the image and the tests use the same one
build *arguments:
    cargo build --locked "$@"

# Build, start everything, make a tenant, deploy to it, and open its address with curl
demo *arguments:
    scripts/demo "$@"

# Every test there is, real engine included
test *arguments:
    scripts/test "$@"

# Every test three times, none tried again: finds those that fail now and then
stress *arguments:
    scripts/stress "$@"

# What must hold before a change lands, without the tests that need an engine
check:
    cargo fmt --check
    cargo clippy --locked --all-targets -- -D warnings
    RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --quiet
    cargo test --locked --quiet --test architecture --test supply_chain
    if command -v cargo-deny >/dev/null; then cargo deny check licenses bans sources; fi

# Measure what the performance goals are about; `--write` puts the figures into docs/performance.md
bench *arguments:
    scripts/bench "$@"

# The same with few rounds and small inputs, to see that all of it runs
bench-quick *arguments:
    scripts/bench --quick "$@"

# Measure what building this project takes, in a copy; `--release` as well, `--write` into docs/performance.md
bench-build *arguments:
    scripts/bench-build "$@"

# Sign in to a server
login *arguments: build
    {{ bin }} login "$@"

# Sign out
logout *arguments: build
    {{ bin }} logout "$@"

# Who is signed in, where, and for how long
whoami *arguments: build
    {{ bin }} whoami "$@"

# Create, look at, change and delete tenants
tenant *arguments: build
    {{ bin }} tenant "$@"

# Build this project's image, push it and release it
deploy *arguments: build
    {{ bin }} deploy "$@"

# Set, import, list and remove a tenant's secrets
secrets *arguments: build
    {{ bin }} secrets "$@"

# Run the management API
serve *arguments: build
    {{ bin }} serve "$@"

# Write the `.systemprompt` folder into a project
init *arguments: build
    {{ bin }} init "$@"

# Check everything that deploying needs
doctor *arguments: build
    {{ bin }} doctor "$@"

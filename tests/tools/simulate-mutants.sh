#!/bin/sh
# Applies each deliberate fault of tests/simulation/mutants to a copy of the sources, and runs the simulation on it: every one must be
# found. Each day has its own seed. `simulate-mutants.sh TARGET [DAYS] [NAME...]`
set -eu
target=$1
days=${2:-1}
shift; [ $# -eq 0 ] || shift
root=$(cd "$(dirname "$0")/../.." && pwd)
tree=$root/target/mutants
mkdir -p "$tree/tests"
# Only what the library and the simulation need, with their times, so that what did not change is not built again.
copy() {
	rm -rf "$tree/src" "$tree/tests/simulation" "$tree/tests/common"
	cp -Rp "$root/src" "$tree/src"
	cp -Rp "$root/tests/simulation" "$root/tests/common" "$tree/tests/"
	cp -p "$root/Cargo.lock" "$root/README.md" "$root/rust-toolchain.toml" "$tree/"
	mkdir -p "$tree/conf" && cp -Rp "$root/conf/." "$tree/conf/"
	# Without the examples and benches, which are not copied.
	sed -e '/^# `make demo`/,/^\[lints.rust\]/{/^\[lints.rust\]/!d;}' "$root/Cargo.toml" > "$tree/Cargo.toml"
}
missed=0
for patch in "$root"/tests/simulation/mutants/*.patch; do
	name=$(basename "$patch" .patch)
	case " ${*:-$name} " in *" $name "*) ;; *) continue ;; esac
	copy
	patch --quiet --directory "$tree" -p1 < "$patch"
	if ! (cd "$tree" && CARGO_TARGET_DIR=$root/target cargo test --quiet --locked --target "$target" --test simulation --no-run) > "$tree/$name.log" 2>&1; then
		echo "$name: does not build: see $tree/$name.log"
		missed=$((missed + 1))
		continue
	fi
	if (cd "$tree" && CARGO_TARGET_DIR=$root/target HSDO_SIMULATE_DAYS=$days HSDO_SIMULATE_SEED=1 HSDO_SIMULATE_SHRINK=0 \
		cargo test --quiet --locked --target "$target" --test simulation -- --nocapture) > "$tree/$name.log" 2>&1; then
		echo "$name: NOT FOUND in $days days"
		missed=$((missed + 1))
	elif grep -q '^    found::' "$tree/$name.log"; then
		echo "$name: $(sed -n 's/^    \(found::.*\)/\1/p' "$tree/$name.log" | head -n 1)"
	else
		echo "$name: day $(grep -c ': a day$' "$tree/$name.log"), $(sed -n 's/^[ .]*broken \(after .*\)/\1/p' "$tree/$name.log" | head -n 1)"
	fi
done
# The next build must not take the last fault's objects for its own: cargo sees only that they are newer than the sources.
(cd "$tree" && CARGO_TARGET_DIR=$root/target cargo clean --quiet --locked --package hsdo --target "$target")
[ "$missed" -eq 0 ] || { echo "$missed not found" >&2; exit 1; }

# make run   set-up, then the main job: an image, a golden snapshot, restores, a Python program, the two phase tables
# make test  set-up, then all tests
NODE = node_modules/.bin/node

.PHONY: run test setup check bench clean
run: setup
	@$(NODE) scripts/demo.ts

test: export STACYVM_SETUP = tests
test: setup
	@$(NODE) scripts/run-tests.ts

setup:
	@scripts/setup.sh

check:
	@node_modules/.bin/biome check . && node_modules/.bin/tsc --noEmit && node_modules/.bin/tsc --project web --noEmit

bench: setup
	@$(NODE) bench/main.ts spawn

# Removes what set-up and tests made here, not the system packages.
clean:
	rm -rf .data .build node_modules agent/target spawner/target directory/target

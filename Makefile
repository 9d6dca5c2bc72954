# SPDX-License-Identifier: Apache-2.0
#
# make help says what can be made. The program is one translation unit, interlink-cri.c, which includes every module: there
# is no list of sources here. Everything but the program itself is written under build/.

VERSION := $(shell cat VERSION)
TOP := $(CURDIR)

# What the packages of Debian are called; other distributions have the same things under similar names.
DEPS := make gcc libc6-dev binutils musl-tools linux-libc-dev patch xz-utils protobuf-compiler protobuf-c-compiler
DEPS_TEST := $(DEPS) clang libclang-rt-dev libcmocka-dev python3 python3-venv python3-protobuf busybox-static openssl procps \
	util-linux uidmap git iproute2 iptables containernetworking-plugins

.PHONY: all help vendor-musl vendor-host gen objects san unit fuzz-build check fuzz lint amalgamation dist deps deps-test demo \
	clean distclean
.DELETE_ON_ERROR:
.SECONDARY:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules

all: interlink-cri ## the program: static, stripped, reproducible (the default)

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "OPT=-O2 optimizes for speed; DEBUG=1 keeps symbols; V=1 shows the commands; FUZZ_SECONDS=N; ANALYZER=1 for lint."

ifneq ($(V),1)
Q := @
endif
step = @printf '%-7s %s\n' '$(1)' '$(patsubst $(TOP)/%,%,$@)'

# ---- flags ----

WARN := -Wall -Wextra -Wshadow -Wconversion -Wmissing-prototypes -Wvla -Wformat=2
STD := -std=c11 -D_GNU_SOURCE -DNGHTTP2_STATICLIB -DCURL_STATICLIB
# Third-party and generated code comes by -isystem: its warnings are not ours. compat/ has what libcrun's headers include.
includes = -Isrc -isystem build/gen -isystem build/vendor/$(1)/include -isystem build/vendor/$(1)/include/libcrun/compat
libs = -Lbuild/vendor/$(1)/lib -lcrun -lcurl -larchive -lzstd -lnghttp2 -lbearssl -lprotobuf-c -lz -lyaml -lllhttp -lseccomp \
	-lcap -lpthread

# The program. -Os, sections and no unwind tables make it small; the prefix map and --build-id=none make it the same wherever
# it is built. It is not position independent: nothing has to be relocated, so idle processes share all their pages.
CC_MUSL ?= musl-gcc
OPT ?= -Os
HARDEN ?= -fstack-protector-strong
MUSL_FLAGS = $(STD) $(OPT) $(HARDEN) -fno-pie -ffunction-sections -fdata-sections -fno-asynchronous-unwind-tables -DNDEBUG \
	-ffile-prefix-map=$(TOP)=. $(if $(DEBUG),-g,-g0) $(call includes,musl) -idirafter build/vendor/musl/kernel
MUSL_LINK = -static -no-pie -Wl,--gc-sections -Wl,--build-id=none -Wl,-z,noexecstack -Wl,-z,relro -Wl,-z,now $(if $(DEBUG),,-s)

# Developers' build: every file alone, warnings are errors, sanitizers on.
CC_SAN ?= gcc
SAN := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
# The runtimes as archives: as shared objects, the undefined-behaviour sanitizer writes to standard error whatever log_path says.
SAN_STATIC := $(if $(findstring clang,$(CC_SAN)),,-static-libasan -static-libubsan)
SAN_FLAGS = $(STD) -O1 -g $(SAN) $(call includes,host)
CC_FUZZ ?= clang
FUZZ_SAN := -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
FUZZ_FLAGS = $(STD) -O1 -g $(FUZZ_SAN) $(call includes,host)
FUZZ_SECONDS ?= 10

SRC := $(sort $(shell find src -name '*.c' 2>/dev/null))
PROTO := $(sort $(wildcard proto/*.proto))
GEN_C := $(PROTO:proto/%.proto=build/gen/%.pb-c.c)
UNIT := $(patsubst test/unit/%.c,build/unit/%,$(sort $(wildcard test/unit/test_*.c)))
FUZZ := $(patsubst test/fuzz/%.c,build/fuzz/%,$(sort $(wildcard test/fuzz/fuzz_*.c)))

# ---- third-party libraries and generated code ----

VENDOR_INPUTS := vendor/lock vendor/build.sh $(sort $(wildcard vendor/patches/*/*.patch))

vendor-musl: build/vendor/musl/key ## only the third-party libraries of the program
vendor-host: build/vendor/host/key ## only the third-party libraries of the tests

build/vendor/%/key: $(VENDOR_INPUTS)
	$(Q)CC_MUSL='$(CC_MUSL)' vendor/build.sh $*
	@touch $@

gen: build/gen/stamp ## only the generated code: messages, descriptors, version

# `make dist` ships generated code in gen/, so that its users need no protoc. Otherwise it is made from proto/. One stamp for
# all, for the messages include each other.
build/gen/stamp: $(PROTO) VERSION tools/generate.sh
	$(call step,gen)
	$(Q)tools/generate.sh $(PROTO)

# ---- the program ----

interlink-cri: interlink-cri.c build/vendor/musl/key build/gen/stamp Makefile
	$(call step,cc)
	$(Q)$(CC_MUSL) $(MUSL_FLAGS) -Wall -Wextra -MMD -MP -MF build/interlink-cri.d -MT $@ $(MUSL_LINK) -o $@ $< $(call libs,musl)

-include $(wildcard build/interlink-cri.d)

# ---- the developers' build: sanitizers, unit tests, fuzzers ----

SAN_OBJ := $(SRC:%.c=build/san/%.o) $(GEN_C:build/gen/%.c=build/san/gen/%.o)
FUZZ_OBJ := $(SRC:%.c=build/fuzz/obj/%.o) $(GEN_C:build/gen/%.c=build/fuzz/obj/gen/%.o)

objects: $(SAN_OBJ) ## compile each file alone, warnings as errors, with sanitizers
san: build/san/interlink-cri ## the program with sanitizers, for the end-to-end tests
unit: $(UNIT) ## build the unit tests
fuzz-build: $(FUZZ) ## build the fuzzers

# With KEEP_GOING=1 a file that does not compile is left out (an empty object, already out of date), so that tests which do
# not need it can be built while it is being written.
skip = $(if $(KEEP_GOING),|| { echo "skipped $<" >&2; $(1) -x c -c /dev/null -o $@ && touch -d @0 $@; })

build/san/src/%.o: src/%.c build/gen/stamp build/vendor/host/key
	$(call step,cc)
	@mkdir -p $(@D)
	$(Q)$(CC_SAN) $(SAN_FLAGS) $(WARN) -Werror -MMD -MP -c -o $@ $< $(call skip,$(CC_SAN))

build/san/gen/%.o: build/gen/stamp build/vendor/host/key
	$(call step,cc)
	@mkdir -p $(@D)
	$(Q)$(CC_SAN) $(SAN_FLAGS) -w -c -o $@ build/gen/$*.c

build/fuzz/obj/src/%.o: src/%.c build/gen/stamp build/vendor/host/key
	$(call step,cc)
	@mkdir -p $(@D)
	$(Q)$(CC_FUZZ) $(FUZZ_FLAGS) -MMD -MP -c -o $@ $< $(call skip,$(CC_FUZZ))

build/fuzz/obj/gen/%.o: build/gen/stamp build/vendor/host/key
	$(call step,cc)
	@mkdir -p $(@D)
	$(Q)$(CC_FUZZ) $(FUZZ_FLAGS) -w -c -o $@ build/gen/$*.c

# Tests link to archives, so that one which includes a .c itself (to reach its statics) does not get it twice.
build/san/libinterlink-cri.a: $(filter-out build/san/src/cli/main.o,$(SAN_OBJ))
	@rm -f $@ && ar rcs $@ $^
build/fuzz/libinterlink-cri.a: $(filter-out build/fuzz/obj/src/cli/main.o,$(FUZZ_OBJ))
	@rm -f $@ && ar rcs $@ $^

build/san/interlink-cri: $(SAN_OBJ)
	$(call step,link)
	$(Q)$(CC_SAN) $(SAN) $(SAN_STATIC) -o $@ $^ $(call libs,host)

build/unit/%: test/unit/%.c build/san/libinterlink-cri.a
	$(call step,test)
	@mkdir -p $(@D)
	$(Q)$(CC_SAN) $(SAN_FLAGS) $(WARN) -Werror -MMD -MP -MF $@.d -MT $@ -o $@ $< build/san/libinterlink-cri.a -lcmocka $(call libs,host)

build/fuzz/fuzz_%: test/fuzz/fuzz_%.c build/fuzz/libinterlink-cri.a
	$(call step,fuzzer)
	@mkdir -p $(@D)
	$(Q)$(CC_FUZZ) $(FUZZ_FLAGS) -fsanitize=fuzzer -MMD -MP -MF $@.d -MT $@ -o $@ $< build/fuzz/libinterlink-cri.a $(call libs,host)

-include $(wildcard $(SAN_OBJ:.o=.d) $(FUZZ_OBJ:.o=.d) $(UNIT:=.d) $(FUZZ:=.d))

# ---- checks ----

check: $(UNIT) ## run the unit tests
	@failed=; for test in $(UNIT); do echo "== $$test"; $$test || failed="$$failed $$test"; done; \
		echo; [ -z "$$failed" ] && echo "unit: $(words $(UNIT)) programs passed" || { echo "unit: FAILED:$$failed" >&2; exit 1; }

# A crash leaves its input in build/fuzz/; a folder test/fuzz/corpus/NAME gives the inputs to start from.
fuzz: $(FUZZ) ## run each fuzzer for FUZZ_SECONDS
	@failed=; for fuzzer in $(FUZZ); do name=$${fuzzer##*/fuzz_}; corpus=; \
		[ -d test/fuzz/corpus/$$name ] && corpus=test/fuzz/corpus/$$name; \
		mkdir -p build/fuzz/corpus/$$name; log=build/fuzz/$$name.log; \
		if $$fuzzer -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=2048 -artifact_prefix=build/fuzz/$$name- \
			build/fuzz/corpus/$$name $$corpus >$$log 2>&1; then echo "fuzz: $$name: $$(tail -n 1 $$log)"; \
		else tail -n 40 $$log; failed="$$failed $$name"; fi; done; \
		[ -z "$$failed" ] && echo "fuzz: $(words $(FUZZ)) fuzzers, no finding" || { echo "fuzz: FAILED:$$failed" >&2; exit 1; }

# The whole program at once, every header alone, and the layout's rules. ANALYZER=1 adds gcc's static analyzer, which is slow.
lint: build/gen/stamp build/vendor/musl/key build/vendor/host/key ## warnings as errors, headers alone, layout; ANALYZER=1: gcc -fanalyzer
	$(Q)$(CC_MUSL) $(MUSL_FLAGS) $(WARN) -Werror -fsyntax-only interlink-cri.c
	$(Q)for header in $$(find src -name '*.h'); do \
		$(CC_SAN) $(STD) $(call includes,host) $(WARN) -Werror -fsyntax-only -x c $$header || exit 1; done
	$(Q)python3 test/layout.py
ifdef ANALYZER
	$(Q)for file in $(SRC); do echo "analyze $$file"; \
		$(CC_SAN) $(STD) -O1 $(call includes,host) -fanalyzer -Werror -c -o /dev/null $$file || exit 1; done
endif

# ---- what leaves this folder ----

amalgamation: build/interlink-cri-amalgamation.c ## one flat C file with all our sources and messages

build/interlink-cri-amalgamation.c: interlink-cri build/gen/stamp tools/amalgamate.py
	$(call step,flatten)
	$(Q)python3 tools/amalgamate.py interlink-cri.c $@

# The same program from the flat file, to see that it is.
build/interlink-cri-flat: build/interlink-cri-amalgamation.c build/vendor/musl/key
	$(call step,cc)
	$(Q)$(CC_MUSL) $(MUSL_FLAGS) -Wall -Wextra $(MUSL_LINK) -o $@ $< $(call libs,musl)

dist: build/gen/stamp ## a tarball with every third-party source: builds without network and protoc
	$(Q)tools/dist.sh $(VERSION)

deps: ## install the Debian packages that building needs
	$(Q)tools/deps.sh $(DEPS)

deps-test: ## install those that testing needs, too
	$(Q)tools/deps.sh $(DEPS_TEST)

demo: ## install, build, run one real pod and tidy up
	$(Q)$(MAKE) --no-print-directory deps
	$(Q)$(MAKE) --no-print-directory interlink-cri
	$(Q)test/demo.sh

clean: ## remove what was built, but not the third-party libraries
	rm -rf interlink-cri build/interlink-cri* build/gen build/san build/unit build/fuzz

distclean: clean ## remove everything that was built (the cache in the home folder stays)
	rm -rf build

# lowbit: targets for people; the build itself is CMake's (CMakeLists.txt, CMakePresets.json).
PREFIX ?= /usr/local
BUILD ?= build
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
LOWBIT = $(BUILD)/lowbit
# Tests share the processors: waiting threads must not spin.
CTEST = OMP_WAIT_POLICY=passive ctest --output-on-failure -j $(JOBS)

.PHONY: all help deps quickstart test sanitize bench-train bench-infer bench-mcu check-onnx onnx-resnet20 torchvision results results-plot \
    results-tables results-record coverage install clean

all: $(BUILD)/build.ninja ## configure and build build/lowbit and the libraries
	@cmake --build $(BUILD)

$(BUILD)/build.ninja:
	@cmake -S . -B $(BUILD) -G Ninja -DCMAKE_BUILD_TYPE=Release

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24

deps: ## install the Debian packages that are missing; on another system: print the list
	@scripts/deps.sh

quickstart: ## train, test, pack and verify a 2-bit network on Fashion-MNIST (a few minutes)
	@scripts/deps.sh
	@$(MAKE) --no-print-directory all
	@scripts/quickstart.sh $(LOWBIT) runs/quickstart

test: ## build and run the tests
	@scripts/deps.sh --emulators libonnx-testdata
	@$(MAKE) --no-print-directory all
	@cd $(BUILD) && $(CTEST)

sanitize: ## build with address and undefined-behaviour sanitizers in build-sanitize/ and run all but the slow tests
	@scripts/deps.sh
	@cmake -S . -B build-sanitize -G Ninja -DCMAKE_BUILD_TYPE=Debug -DLOWBIT_SANITIZE=ON -DLOWBIT_WERROR=ON
	@cmake --build build-sanitize
	@cd build-sanitize && $(CTEST) -LE slow

bench-train: all ## training speed beside PyTorch's (python3-torch, ../shared/peers); PARTS="speed methods" for some of it
	@bench/train.sh $(LOWBIT)

bench-infer: all ## inference latency beside ONNX Runtime's and oneDNN's (node, g++, ../shared/peers; only our own without them)
	@cmake --build $(BUILD) --target random_model peak
	@bench/infer.sh $(LOWBIT) $(BUILD)

bench-mcu: all ## flash, RAM and instructions of generated C on Cortex-M, 1 to 8 bits (QEMU); MODELS=FILE: of others too; CMSIS_NN=CHECKOUT: beside CMSIS-NN's
	@scripts/deps.sh --emulators
	@cmake --build $(BUILD) --target random_model
	@bench/mcu.sh $(LOWBIT) $(BUILD)/random_model

results-%: all # one table of accuracies, bench/results/NAME.txt; SEEDS="1 2 3", EPOCHS=10; continued where it stopped
	@bench/results.sh $(LOWBIT) $*

try-%: all # two steps of each row of a table, packed and compared, in runs/try/NAME; RUNS="a b": of some rows
	@rm -rf runs/try/$*
	@ROOT=runs/try SEEDS=1 SET="train.steps=2 data.train_limit=2000 data.test_limit=250" bench/results.sh $(LOWBIT) $*

results-plot: all ## accuracy against packed size of all finished runs, runs/results/plot.svg (gnuplot-nox and jq)
	@scripts/deps.sh gnuplot-nox jq
	@bench/plot.sh $(LOWBIT)

results-tables: all ## the finished rows of all tables in Markdown, as in docs/results.md (jq)
	@scripts/deps.sh jq
	@bench/tables.sh $(LOWBIT)

results-record: all ## add the finished runs to bench/results/record*.tsv and to the tables of docs/results.md (jq)
	@scripts/deps.sh jq
	@bench/record.sh $(LOWBIT)

results: ## the tables of accuracies: make results-cifar10 trains, packs and compares the runs of bench/results/cifar10.txt
	@echo "make results-NAME trains, make try-NAME takes two steps of each row. NAME is one of:"
	@echo "  $$(cd bench/results && ls *.txt | sed 's/.txt$$//' | tr '\n' ' ')"
	@echo "RUNS=\"a b\" chooses rows, SEEDS=\"1 2 3\" seeds, EPOCHS=10 another budget: docs/results.md"

RUN ?= runs/quickstart
check-onnx: all ## export RUN=runs/quickstart as ONNX, count predictions that ONNX Runtime gives alike (npm, python3-onnx)
	@cmake --build $(BUILD) --target onnx_reference
	@bench/onnx/check.sh $(BUILD) $(RUN)

onnx-resnet20: all ## a float ResNet-20 from PyTorch: imported, fine-tuned to W2A2 by LSQ, exported, compared on every test image
	@scripts/deps.sh python3-torch python3-pil
	@cmake --build $(BUILD) --target onnx_reference
	@bench/onnx/resnet20.sh $(BUILD)

torchvision: all ## torchvision's networks imported, trained for an epoch at 4 bits on CIFAR-10, packed, verified; NETS="resnet18" chooses
	@scripts/deps.sh python3-torchvision
	@cmake --build $(BUILD) --target onnx_reference
	@bench/onnx/torchvision.sh $(BUILD)

coverage: ## build for coverage in build-coverage/, run the tests, print line coverage per file
	@scripts/deps.sh gcovr
	@cmake -S . -B build-coverage -G Ninja -DCMAKE_BUILD_TYPE=Debug -DLOWBIT_COVERAGE=ON -DLOWBIT_WERROR=ON
	@cmake --build build-coverage
	@cd build-coverage && $(CTEST)
	@gcovr --root . --filter src/ --filter runtime/ --filter cli/ build-coverage

install: all ## install program, libraries and headers; PREFIX=/usr/local, DESTDIR is respected
	@cmake --install $(BUILD) --prefix $(PREFIX)

clean: ## remove the build directories (runs/ stays)
	@rm -rf $(BUILD) build-sanitize build-coverage build-clang

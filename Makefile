# make demo   find, meta-train, adapt, finetune and use networks on rendered pairs; ends with fused images and a page
# make dev    a development environment in .venv: the package from this folder, with the test tools
# make test   build the wheel, install it into .venv-test and test what was installed
# make test-rounding   the tests of what processors round differently, with other instructions than this one's best
# make lint   style and types, with the tools of .venv-test
# make docs   build the documentation as a site in site/
# make clean  remove everything that was built here; runs/ stays

PYTHON ?= python3
DEMO := runs/demo
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

SOURCES := $(shell find . -path './.*' -prune -o -path ./tests -prune -o -path ./build -prune -o -path ./dist -prune \
	-o -path ./runs -prune -o -path ./site -prune -o -path ./docs -prune -o -path ./examples -prune \
	-o \( -name '*.py' -o -name '*.yaml' -o -name '*.html' -o -name '*.safetensors' -o -name py.typed \) -print)

# The tests are about what is installed, not about what happens to lie on the path.
unexport PYTHONPATH

.PHONY: demo dev test test-rounding lint docs clean

# The pairs that are fused are not among those that the network was found and trained on.
demo: .venv/.installed
	.venv/bin/timfuse search --config configs/search-demo.yaml --overwrite
	.venv/bin/timfuse meta-init --config configs/meta-init-demo.yaml --overwrite
	.venv/bin/timfuse adapt all-tasks --task multi-focus --steps 30 --run $(DEMO)/adapted --overwrite
	.venv/bin/timfuse finetune --config configs/finetune-demo.yaml --overwrite
	.venv/bin/timfuse scenes -o $(DEMO)/pairs --size 320x240 --seed 1
	.venv/bin/timfuse fuse --data $(DEMO)/pairs -o $(DEMO)/found --network $(DEMO)/search --overwrite
	.venv/bin/timfuse fuse --data $(DEMO)/pairs -o $(DEMO)/ivif --overwrite
	.venv/bin/timfuse evaluate --data $(DEMO)/pairs --fused found=$(DEMO)/found ivif=$(DEMO)/ivif -o $(DEMO)/scores
	.venv/bin/timfuse compare --data $(DEMO)/pairs --fused found=$(DEMO)/found ivif=$(DEMO)/ivif -o $(DEMO)/comparison \
		--picture $(DEMO)/adapted/pictures/examples.png --picture $(DEMO)/finetune/pictures/examples.png \
		--picture $(DEMO)/meta-init/pictures/adaptation.png
	@echo "Look at $(DEMO)/comparison/page.html, and at the report of the search: $(DEMO)/search/report.html"
	@echo "Curves: .venv/bin/tensorboard --logdir $(DEMO)"

dev: .venv/.developed

# Two processes of tests at a time, each with one thread; the tests of a file share what they prepare.
test: .venv-test/.installed
	.venv-test/bin/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# With the plainest instructions, and with AVX2 where the processor's best are others.
test-rounding: .venv-test/.installed
	if grep -qm 1 avx512f /proc/cpuinfo; then \
		ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 \
			.venv-test/bin/pytest --numprocesses 2 --dist load -m rounding; \
	fi
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 \
		.venv-test/bin/pytest --numprocesses 2 --dist load -m rounding

# The root of the repository is the package, so mypy is shown a folder that holds it under its name.
lint: .venv-test/.installed
	.venv-test/bin/ruff check .
	.venv-test/bin/ruff format --check .
	mkdir -p .venv-test/source && ln -sfn ../.. .venv-test/source/timfuse
	cd .venv-test/source && MYPYPATH=. ../bin/mypy --config-file timfuse/pyproject.toml --package timfuse

# The reference is of the package that .venv-test has; the theme would tell of its successor.
docs: .venv-test/.installed
	NO_MKDOCS_2_WARNING=1 .venv-test/bin/mkdocs build --quiet

clean:
	rm -rf .venv .venv-test build dist site timfuse.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

.venv/.installed: setup.cfg constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python $(PIP_INSTALL) --editable '.[tensorboard,tasks,tune]'
	touch $@

.venv/.developed: .venv/.installed
	.venv/bin/python $(PIP_INSTALL) --editable '.[tensorboard,tasks,tune,export,hub,video,flir,docs,test]'
	touch $@

.venv-test/.tools: constraints.txt
	$(PYTHON) -m venv .venv-test
	.venv-test/bin/python $(PIP_INSTALL) build setuptools twine
	touch $@

# The source archive is built first and the wheel from it, so both are known to be whole.
dist/.built: .venv-test/.tools setup.cfg pyproject.toml README.md LICENSE $(SOURCES)
	rm -rf dist build timfuse.egg-info
	.venv-test/bin/python -m build --no-isolation --outdir dist . > /dev/null
	.venv-test/bin/twine check --strict dist/*
	touch $@

.venv-test/.installed: dist/.built
	.venv-test/bin/python -m pip uninstall --quiet --yes timfuse
	.venv-test/bin/python $(PIP_INSTALL) "$$(echo dist/*.whl)[tensorboard,tasks,tune,export,hub,video,flir,docs,test]"
	touch $@

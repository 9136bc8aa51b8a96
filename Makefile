# Thin names for the commands in the README.
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
PORT ?= 5000
UV := $(shell command -v uv 2> /dev/null)

.PHONY: install quick paper test lint ui lock

install: $(INSTALLED)

# The locked environment, once; again only when the lock or the package description changes.
$(INSTALLED): requirements.txt pyproject.toml
	test -x $(BIN)/python || $(if $(UV),uv venv --python python3 $(VENV),python3 -m venv $(VENV))
ifneq ($(UV),)
	VIRTUAL_ENV=$(VENV) uv pip install --compile-bytecode --require-hashes -r requirements.txt
	VIRTUAL_ENV=$(VENV) uv pip install --compile-bytecode --no-deps --no-build-isolation -e .
else
	$(BIN)/python -m pip install --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --no-deps --no-build-isolation -e .
endif
	touch $@

quick: install
	$(BIN)/snakemake --cores all quick

paper: install
	$(BIN)/snakemake --cores all all

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/nbstripout --verify notebooks/*.ipynb
	$(BIN)/snakemake --lint

test: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal

ui: install
	@record=$$($(BIN)/python -c 'from sdnet.experiments.tracking import address; print(address())') && \
	case "$$record" in \
	http*) echo "the runs are on the server $$record";; \
	*) MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_DISABLE_TELEMETRY=true \
		$(BIN)/mlflow ui --backend-store-uri "$$record" --host 127.0.0.1 --port $(PORT);; \
	esac

# Needs uv. One lock for Linux and macOS, Python 3.11 to 3.13, and the conda environment of the same versions.
lock:
	uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --quiet --output-file requirements.txt
	sed -i.old '/^  - pip:/,$$d' envs/environment.yaml && rm envs/environment.yaml.old
	echo '  - pip:' >> envs/environment.yaml
	sed -nE 's/^([A-Za-z0-9][^\]*[^ \]) *\\?$$/      - "\1"/p' requirements.txt >> envs/environment.yaml

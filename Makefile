# The two commands of the README, and the checks. Each installs what is missing first (tools/setup.sh).
.PHONY: iso test check quick fuzz clean

iso:
	@tools/setup.sh iso
	.venv/bin/rehost build --base debian --boot-files out/debian -o out/rehost.iso

test:
	@tools/setup.sh test
	$(MAKE) --no-print-directory check
	.venv/bin/python -m pytest -n 2 --dist worksteal -m "not e2e and not msboot"
	.venv/bin/python -m pytest -n 2 --dist worksteal -m "e2e or msboot"

# everything that needs no virtual machine
quick:
	@tools/setup.sh test
	.venv/bin/python -m pytest -n 2 --dist worksteal -m "not e2e and not msboot"

# the property tests with examples that no run has tried before; the other runs try the same ones every time
fuzz:
	@tools/setup.sh test
	.venv/bin/python -m pytest -n 2 --dist worksteal -m hypothesis --hypothesis-profile=fresh

check:
	@tools/setup.sh test
	.venv/bin/ruff check builder payload tests
	.venv/bin/ruff format --check builder payload tests
	.venv/bin/mypy

clean:
	rm -rf out

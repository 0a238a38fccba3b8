"""``tinydancer postgres``, and what it installs from."""

from __future__ import annotations

import json

from typer.testing import CliRunner

import server_requirements
from tinydancer._version import __version__
from tinydancer.cli import postgres_install
from tinydancer.cli.postgres import postgres_app
from tinydancer.errors import NotFoundError


def test_the_server_gets_the_locked_packages():
    assert postgres_install.requirements_text() == server_requirements.requirements()


def test_status_and_repeated_install(server):
    runner = CliRunner()
    found = runner.invoke(postgres_app, ["status", "--pg-config", server.pg_config, "--json"])
    assert found.exit_code == 0, found.output
    facts = json.loads(found.stdout)
    assert facts["server"].startswith("PostgreSQL ")
    assert facts[f"Tiny Dancer {__version__}"] == str(server.modules(__version__))
    shown = runner.invoke(postgres_app, ["status", "--pg-config", server.pg_config])
    assert "built for Python 3." in shown.stdout
    again = runner.invoke(postgres_app, ["install", "--pg-config", server.pg_config])
    assert again.exit_code == 0
    assert "is installed for PostgreSQL" in again.stdout


def test_uninstalling_what_is_not_there(server):
    result = CliRunner().invoke(postgres_app, ["uninstall", "--pg-config", server.pg_config, "--version", "0.0.1"])
    assert isinstance(result.exception, NotFoundError)
    assert postgres_install.installed_versions(server) == [__version__]

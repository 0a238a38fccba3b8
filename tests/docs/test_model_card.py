"""The model card is about the model that ships: the page is what the file says of itself."""

from __future__ import annotations

import model_card
from tinydancer.model.quality import QualityModel, shipped_model_path


def test_the_page_is_that_of_the_shipped_file() -> None:
    assert model_card.PAGE.read_text(encoding="utf-8") == model_card.page(shipped_model_path()), (
        "docs/model-card.md is not about the shipped weights; write it anew with: python scripts/model_card.py"
    )


def test_the_page_says_what_the_file_says() -> None:
    model = QualityModel.load(shipped_model_path())
    page = model_card.page(shipped_model_path())
    assert f"`{model.sha256}`" in page
    assert f"{shipped_model_path().stat().st_size:,} bytes" in page
    for agent, count in model.facts["outcomes_by_agent"].items():
        assert f"| {agent} | {count:,} |" in page
    apgr, (low, high) = (figures := model.facts["cross_validated"][0])["apgr"], figures["intervals"]["apgr"]
    assert f"| APGR | {apgr:.3f} ({low:.3f} to {high:.3f}) |" in page
    assert shipped_model_path().stat().st_size <= 1_000_000

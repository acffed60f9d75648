"""The wandb dashboard of a project, as code: curves by estimator, bounds against cost, images, tables.

    python scripts/dashboard.py ENTITY [PROJECT]      # saves a view; needs the extra argmax-vae[dashboard] and a login
    python scripts/dashboard.py ENTITY --dry-run      # prints its panels, needs no network

Runs are grouped by estimator and ordered by their test bound; what is plotted is what the tracker logs.
"""

import argparse
import sys
from collections.abc import Sequence

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

from argmax_vae.report.labels import FIGURES
from argmax_vae.report.records import TABLES

ESTIMATOR = "estimator.name"


def curves() -> ws.Section:
    """Bounds and accuracies over epochs, averaged by estimator, with the range of the runs."""
    titles = {
        "test_bound": "test bound (nats)",
        "validation_bound": "validation bound (nats)",
        "validation_kl": "KL (nats)",
        "test_accuracy": "test accuracy of the arg max",
        "test_codes_in_use": "values in use per latent",
    }
    panels = [
        wr.LinePlot(
            title=title,
            x="epoch",
            y=[metric],
            groupby=wr.Config(ESTIMATOR),
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
            title_x="epoch",
        )
        for metric, title in titles.items()
    ]
    return ws.Section(name="Curves by estimator", panels=panels, is_open=True)


def cost() -> ws.Section:
    """Final test bounds against what they cost."""
    costs = {"final/seconds": "seconds of training", "final/steps": "steps"}
    panels = [
        wr.ScatterPlot(
            title=f"test bound against {title}", x=wr.SummaryMetric(name), y=wr.SummaryMetric("final/test_bound")
        )
        for name, title in costs.items()
    ]
    return ws.Section(name="Bound against cost", panels=panels, is_open=True)


def images() -> ws.Section:
    """Samples of the prior and reconstructions of every run."""
    panels = [wr.MediaBrowser(title=key, media_keys=[key]) for key in ("samples", "reconstructions")]
    return ws.Section(name="Images", panels=panels)


def tables() -> ws.Section:
    """The tables that `argmax-vae reproduce` published, and the seeds of every run."""
    panels = [wr.WeavePanelSummaryTable(table_name=name) for name in ("seeds", *TABLES, *FIGURES)]
    return ws.Section(name="Tables", panels=panels)


def workspace(entity: str, project: str) -> ws.Workspace:
    """The view: four sections over runs grouped by estimator, the best test bound first."""
    return ws.Workspace(
        entity=entity,
        project=project,
        name="Estimators compared",
        sections=[curves(), cost(), images(), tables()],
        runset_settings=ws.RunsetSettings(
            groupby=[ws.Config(ESTIMATOR)],
            order=[ws.Ordering(ws.Summary("final/test_bound"), ascending=True)],
        ),
    )


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("entity", help="user or team")
    parser.add_argument("project", nargs="?", default="argmax-vae")
    parser.add_argument("--dry-run", action="store_true")
    given = parser.parse_args(arguments)
    view = workspace(given.entity, given.project)
    if given.dry_run:
        for section in view.sections:
            print(f"{section.name}: {len(section.panels)} panels")
        return 0
    view.save()
    print(view.url)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

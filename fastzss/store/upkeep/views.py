"""The views layers of stores that are written in another form, or joined of parts."""

from pathlib import Path

from tqdm import tqdm

from fastzss.base.errors import UserError
from fastzss.base.files import write_json
from fastzss.store.commits import commit_name, read_commits, store_form
from fastzss.store.reading.views import ViewStore
from fastzss.store.views import ViewWriter, read_view_plan, view_folders


def convert_views(path, out, form):
    """Write the finished views of a store in another form."""
    for folder in view_folders(path):
        views = ViewStore(path, folder.name)
        writer = ViewWriter(out, views.plan, form)
        for shard in tqdm(writer.todo(), unit="shard", desc="convert views", disable=None):
            part = writer.begin(shard)
            for name in views.plan.arrays:
                part.put_bytes(name, views.array(name, shard))
            part.commit()
        if not (writer.folder / "manifest.json").exists():
            writer.finish()


def merge_views(parts, out, link):
    """Join the views of parts of one store; those that are not whole yet stay so, and extract continues them."""
    for folder in {folder.name: folder for part in parts for folder in view_folders(part)}.values():
        plan = read_view_plan(folder)
        writer = None
        for part in parts:
            own = Path(part) / plan.folder
            if not (own / "plan.json").is_file():
                continue
            if read_view_plan(own).identity != plan.identity:
                raise UserError(f"{own}: its views are not those of {folder}; extract them alike in all parts")
            if not (form := store_form(own, "views")):
                continue
            writer = writer or ViewWriter(out, plan, form)
            commits, todo = read_commits(own, plan), set(writer.todo())
            for shard in sorted(todo & commits.keys()):
                for name, entry in commits[shard]["files"].items():
                    link(own / name, writer.folder / name, entry)
                write_json(writer.folder / commit_name(shard), commits[shard])
        if writer and not writer.todo() and not (writer.folder / "manifest.json").exists():
            writer.finish()

"""MLflow runs that are written to a file of this machine first, and sent to a Plinth server when it is there."""

__version__ = "0.1.0"


def stop_requested(run_id=None):
    """Whether somebody has stopped the run (default: the active one) on the server: a good moment to save and end."""
    from plinth_spool import sender

    if run_id is None:
        import mlflow

        active = mlflow.active_run()
        if active is None:
            return False
        run_id = active.info.run_id
    return sender.is_stopped(run_id)

"""The worker: each Celery task takes a shard or benchmark case, and a runner processes it.

Only `app` and `tasks` import Celery; `transport` extends Kombu, Celery's messaging library.
"""

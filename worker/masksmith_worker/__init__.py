"""The worker: Celery tasks receive shard numbers, runners process them. Only `app` and `tasks` use Celery."""

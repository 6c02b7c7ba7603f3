"""The services that an app is made with, each known by its type, so that this package needs to know none of them."""

from __future__ import annotations

from typing import ClassVar, TypeVar

from fastapi import Request

from portal.http.problems import ProblemError
from portal.http.rate_limit import RateLimit
from portal.http.tokens import TokenBook


class Service:
    """What the routes of one noun call. `title`: its name in the answer of an app that is made without it."""

    title: ClassVar[str]


S = TypeVar("S", bound=Service)


class Services:
    """Tokens, services by their type, and limits of requests; `rates` None: no request is counted.

    Raises ValueError where two services are of one type.
    """

    def __init__(self, tokens: TokenBook, *services: Service, rates: RateLimit | None = None) -> None:
        self.tokens = tokens
        self.rates = rates
        self._by_type = {type(service): service for service in services}
        if len(self._by_type) != len(services):
            raise ValueError("two services are of one type")

    def find(self, kind: type[S]) -> S | None:
        """The service of this type; None: the app is made without it."""
        service = self._by_type.get(kind)
        return service if isinstance(service, kind) else None


def services(request: Request) -> Services:
    """What the app was made with."""
    made_with: Services = request.app.state.services
    return made_with


def service(request: Request, kind: type[S]) -> S:
    """The service of this type. Raises ProblemError 404 where the app is made without it."""
    noun_service = services(request).find(kind)
    if noun_service is None:
        raise ProblemError(404, f"there is no {kind.title} here")
    return noun_service

"""Types for heads' arguments with their allowed values, which also check a recipe's fields."""

from typing import Annotated

from pydantic import Field

Count = Annotated[int, Field(ge=1)]
Part = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Dropout = Fraction
Number = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0)]

"""How well a model ranks: judged collections, a first stage, measures, one evaluation."""

#pragma once

#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "checks.hpp"
#include "closeness.hpp"
#include "rometrace/trace/trace.hpp"

namespace rometrace::testing {

/// A score is a mean of probabilities. Below the absolute floor a probability is what float32 leaves of a value that is
/// far below 1. A standard error is a small difference of such values, so its own relative error is larger.
struct TraceTolerances {
  Tolerance scores, errors;
  Tolerance measured;  // logits and their like are not below 1
};
inline constexpr TraceTolerances kDoubleTraces{{1e-9, 1e-12}, {1e-6, 1e-9}, {1e-9, 1e-10}};
inline constexpr TraceTolerances kFloatTraces{{1e-5, 1e-7}, {1e-3, 1e-6}, {1e-4, 1e-4}};

inline TraceTolerances tolerances_of(at::ScalarType dtype) {
  return dtype == at::kDouble ? kDoubleTraces : kFloatTraces;
}

inline void compare_runs(const RunScore& found, const RunScore& expected, const std::string& name, Closeness& scores,
                         Closeness& errors, Closeness& measured) {
  scores.compare(name, found.score, expected.score);
  errors.compare("error of " + name, found.standard_error, expected.standard_error);
  REQUIRE(found.measured.size() == expected.measured.size());
  for (std::size_t m = 0; m < expected.measured.size(); ++m) {
    measured.compare("a reading of " + name, found.measured[m].value, expected.measured[m].value);
    errors.compare("error of a reading of " + name, found.measured[m].standard_error,
                   expected.measured[m].standard_error);
  }
}

/// Of all neurons that were told of, whatever their order: effects that are equal may be told in any.
inline void compare_neurons(const NeuronTrace& found, const NeuronTrace& expected, Closeness& scores, Closeness& errors,
                            Closeness& measured) {
  CHECK(found.positions == expected.positions);
  CHECK(found.layers == expected.layers);
  CHECK(found.candidates == expected.candidates);
  using Name = std::tuple<std::int64_t, std::int64_t, std::int64_t>;
  std::map<Name, const NeuronEffect*> by_name;
  for (const auto& effect : found.effects) by_name[{effect.position, effect.layer, effect.neuron}] = &effect;
  REQUIRE(found.effects.size() == expected.effects.size());
  for (const auto& effect : expected.effects) {
    const auto* same = by_name.at({effect.position, effect.layer, effect.neuron});
    compare_runs(same->run, effect.run,
                 "neuron " + std::to_string(effect.layer) + ":" + std::to_string(effect.neuron) + " at " +
                     std::to_string(effect.position),
                 scores, errors, measured);
    measured.compare("estimate", same->estimate, effect.estimate);
    measured.compare("norm of its row", same->row_norm, effect.row_norm);
  }
  const auto compare_sets = [&](const NeuronSet& one, const NeuronSet& other, const std::string& name) {
    CHECK(one.position == other.position);
    CHECK(one.layer == other.layer);
    CHECK(one.neurons == other.neurons);
    compare_runs(one.run, other.run, name + " of " + std::to_string(other.neurons), scores, errors, measured);
  };
  REQUIRE(found.sets.size() == expected.sets.size());
  for (std::size_t i = 0; i < found.sets.size(); ++i) compare_sets(found.sets[i], expected.sets[i], "a set");
  REQUIRE(found.sets_by_layer.size() == expected.sets_by_layer.size());
  for (std::size_t i = 0; i < found.sets_by_layer.size(); ++i) {
    compare_sets(found.sets_by_layer[i], expected.sets_by_layer[i], "a set of a layer");
  }
  REQUIRE(found.controls.size() == expected.controls.size());
  for (std::size_t i = 0; i < found.controls.size(); ++i) {
    CHECK(found.controls[i].order == expected.controls[i].order);
    compare_sets(found.controls[i].set, expected.controls[i].set, "a control");
  }
  REQUIRE(found.half.size() == expected.half.size());
  for (std::size_t i = 0; i < found.half.size(); ++i) CHECK(found.half[i].neurons == expected.half[i].neurons);
}

/// `of`: the trace that the expected grids are of.
inline void compare_grids(const std::vector<CausalGrid>& found, const std::vector<CausalGrid>& expected,
                          const Trace& of, Closeness& scores, Closeness& errors, Closeness& measured) {
  REQUIRE(found.size() == expected.size());
  for (std::size_t g = 0; g < expected.size(); ++g) {
    CHECK(found[g].kind == expected[g].kind);
    CHECK(found[g].window == expected[g].window);
    REQUIRE(found[g].scores.size() == expected[g].scores.size());
    for (std::size_t i = 0; i < expected[g].scores.size(); ++i) {
      const auto columns = static_cast<std::size_t>(of.layers * expected[g].heads);
      const auto cell = std::string(to_string(expected[g].kind)) + " [" + std::to_string(i / columns) + "][" +
                        std::to_string(i % columns) + "]";
      scores.compare(cell, found[g].scores[i], expected[g].scores[i]);
      errors.compare("error of " + cell, found[g].standard_error[i], expected[g].standard_error[i]);
    }
    CHECK(found[g].positions == expected[g].positions);
    REQUIRE(found[g].measured.size() == of.measured.size());
    for (std::size_t m = 0; m < of.measured.size(); ++m) {
      const auto name =
          std::string(to_string(of.measured[m].reading.measure)) + " of " + std::string(to_string(expected[g].kind));
      for (std::size_t i = 0; i < expected[g].scores.size(); ++i) {
        measured.compare(name, found[g].measured[m].values[i], expected[g].measured[m].values[i]);
        errors.compare("error of " + name, found[g].measured[m].standard_error[i],
                       expected[g].measured[m].standard_error[i]);
      }
    }
  }
}

/// Fails the test case unless they are of the same cells and values are close.
inline void compare(const Trace& found, const Trace& expected, const TraceTolerances& tolerances) {
  CHECK(found.answer_id() == expected.answer_id());
  CHECK(found.high_score == expected.high_score);
  CHECK(found.samples == expected.samples);
  Closeness scores(tolerances.scores), errors(tolerances.errors), measured(tolerances.measured);
  measured.compare("nothing", 0, 0);
  scores.compare("low_score", found.low_score, expected.low_score);
  errors.compare("low_standard_error", found.low_standard_error, expected.low_standard_error);
  compare_grids(found.grids, expected.grids, expected, scores, errors, measured);
  compare_grids(found.noising, expected.noising, expected, scores, errors, measured);
  REQUIRE(found.interaction.size() == expected.interaction.size());
  for (std::size_t g = 0; g < expected.interaction.size(); ++g) {
    for (std::size_t i = 0; i < expected.interaction[g].values.size(); ++i) {
      errors.compare("interaction", found.interaction[g].values[i], expected.interaction[g].values[i]);
      errors.compare("error of it", found.interaction[g].standard_error[i], expected.interaction[g].standard_error[i]);
    }
  }
  REQUIRE(found.neurons.has_value() == expected.neurons.has_value());
  if (found.neurons) compare_neurons(*found.neurons, *expected.neurons, scores, errors, measured);
  scores.check();
  errors.check();
  measured.check();
}

}  // namespace rometrace::testing

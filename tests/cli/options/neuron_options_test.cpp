#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "checks.hpp"
#include "cli/options/options.hpp"

namespace rometrace::neuron_options_test {
namespace {

using Which = PositionRule::Which;

/// What the command line of a trace becomes.
cli::Options read(std::vector<std::string> words) {
  words.insert(words.begin(), {"rometrace", "--prompt", "Miles Davis plays the", "--subject", "Miles Davis"});
  std::vector<char*> pointers;
  for (auto& word : words) pointers.push_back(word.data());
  const auto command = cli::parse_options(static_cast<int>(pointers.size()), pointers.data());
  REQUIRE(std::holds_alternative<cli::Options>(command));
  return std::get<cli::Options>(command);
}

}  // namespace

TEST_CASE("neurons are traced only where they are among the kinds, alone without any grid") {
  CHECK_FALSE(read({}).neurons);
  CHECK_FALSE(read({"--kinds", "state"}).neurons);
  const auto alone = read({"--kinds", "neuron"});
  CHECK(alone.kinds.empty());
  REQUIRE(alone.neurons);
  CHECK(alone.neurons->top == 20);
  CHECK((alone.neurons->ranking == NeuronRule{}));
  CHECK_FALSE(alone.neurons->layers);
  CHECK(alone.neurons->given.empty());
  CHECK_FALSE(alone.neurons->sets_by_layer);
  const auto beside = read({"--kinds", "neuron,mlp,neuron"});
  CHECK((beside.kinds == std::vector{Kind::kMlp}));
  CHECK(beside.neurons);
}

TEST_CASE("their positions are the subject's last, and where they are given those of the grids too") {
  const auto alone = read({"--kinds", "neuron"});
  CHECK(alone.neurons->positions.which == Which::kSubjectLast);
  CHECK(alone.positions.which == Which::kSubjectLast);
  const auto beside = read({"--kinds", "state,neuron"});
  CHECK(beside.neurons->positions.which == Which::kSubjectLast);
  CHECK(beside.positions.which == Which::kAll);
  const auto given = read({"--kinds", "state,neuron", "--positions", "last"});
  CHECK(given.neurons->positions.which == Which::kLast);
  CHECK(given.positions.which == Which::kLast);
  const auto all = read({"--kinds", "neuron", "--positions", "all"});
  CHECK(all.neurons->positions.which == Which::kAll);
  CHECK(all.positions.which == Which::kAll);
}

TEST_CASE("the last of the layers is one of them") {
  CHECK((read({"--kinds", "neuron", "--layers", "3-7"}).neurons->layers == LayerRange{3, 8}));
  CHECK((read({"--kinds", "neuron", "--layers", "5"}).neurons->layers == LayerRange{5, 6}));
  CHECK((read({"--kinds", "neuron", "--layers", "0-0"}).neurons->layers == LayerRange{0, 1}));
}

TEST_CASE("what else is asked of neurons is read") {
  const auto ranked =
      *read({"--kinds", "neuron", "--top", "5", "--rank-by", "integrated:8", "--sets", "layer"}).neurons;
  CHECK(ranked.top == 5);
  CHECK((ranked.ranking == NeuronRule{NeuronRule::Which::kIntegrated, 8}));
  CHECK(ranked.sets_by_layer);
  const auto given = *read({"--kinds", "neuron", "--neurons", "5:9,3:117"}).neurons;
  CHECK(to_string(given.given) == "3:117,5:9");
}

}  // namespace rometrace::neuron_options_test

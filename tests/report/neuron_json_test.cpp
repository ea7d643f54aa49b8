#include "report/neuron_json.hpp"

#include <limits>
#include <nlohmann/json.hpp>

#include "checks.hpp"
#include "report/neuron_record.hpp"
#include "rometrace/report/batch_json.hpp"
#include "rometrace/text/json_line.hpp"

namespace rometrace::neuron_json_test {
namespace {

using testing::neuron_record;
using testing::neuron_record_by_layer;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

}  // namespace

TEST_CASE("what was found of neurons is this object") {
  CHECK(
      neurons_json(neuron_record()).dump() ==
      R"({"positions":[1],"layers":[0,2],"ranked_by":"gradient","candidates":8,)"
      R"("effects":[{"layer":1,"position":1,"neuron":3,"estimate":0.125,"score":0.25,"indirect_effect":0.125,)"
      R"("standard_error":0.0625,"value":{"clean":2.0,"corrupted":-0.5},"row_norm":1.5,)"
      R"("promotes":[{"token":" trumpet","token_bytes":"207472756d706574","id":7,"logit":2.0},)"
      R"({"token":" sax","token_bytes":"20736178","id":9,"logit":1.0}],)"
      "\"suppresses\":[{\"token\":\"\xEF\xBF\xBD\",\"token_bytes\":\"c3\",\"id\":8,\"logit\":-1.0}]},"
      R"({"layer":0,"position":1,"neuron":2,"estimate":0.0625,"score":0.0625,"indirect_effect":-0.0625,)"
      R"("standard_error":0.03125,"value":{"clean":0.25,"corrupted":4.0},"row_norm":0.5,)"
      R"("promotes":[{"token":"","token_bytes":"","id":100,"logit":3.0}],)"
      R"("suppresses":[{"token":" sax","token_bytes":"20736178","id":9,"logit":-2.0}]}],)"
      R"("sets":[{"position":1,"neurons":1,"score":0.25,"indirect_effect":0.125,"standard_error":0.0},)"
      R"({"position":1,"neurons":2,"score":0.3125,"indirect_effect":0.1875,"standard_error":0.0},)"
      R"({"position":1,"neurons":4,"score":0.375,"indirect_effect":0.25,"standard_error":0.0},)"
      R"({"position":1,"neurons":8,"score":0.4375,"indirect_effect":0.3125,"standard_error":0.0}],)"
      R"("controls":[{"order":"change","position":1,"neurons":1,"score":0.125,"indirect_effect":0.0,"standard_error":0.0},)"
      R"({"order":"random","position":1,"neurons":1,"score":0.125,"indirect_effect":0.0,"standard_error":0.03125},)"
      R"({"order":"change","position":1,"neurons":2,"score":0.1875,"indirect_effect":0.0625,"standard_error":0.0},)"
      R"({"order":"random","position":1,"neurons":2,"score":0.15625,"indirect_effect":0.03125,"standard_error":0.03125},)"
      R"({"order":"change","position":1,"neurons":4,"score":0.25,"indirect_effect":0.125,"standard_error":0.0},)"
      R"({"order":"random","position":1,"neurons":4,"score":0.1875,"indirect_effect":0.0625,"standard_error":0.03125}],)"
      R"("half":[{"position":1,"candidates":8,"neurons":2}]})");
}

TEST_CASE("a record of neurons alone has no grids, and its neurons last") {
  const auto json = to_json(neuron_record());
  CHECK(json["grids"].empty());
  CHECK(json["grids"].is_object());
  CHECK(std::prev(json.end()).key() == "neurons");
  CHECK_FALSE(json.contains("measures"));
  auto none = neuron_record();
  none.trace.neurons.reset();
  CHECK_FALSE(to_json(none).contains("neurons"));
}

TEST_CASE("sets of each layer say which, and stand apart from those of all layers") {
  const auto json = neurons_json(neuron_record_by_layer());
  CHECK(json["sets"].size() == 4);
  CHECK(json["sets_by_layer"][5].dump() ==
        R"({"position":1,"layer":1,"neurons":4,"score":0.25,"indirect_effect":0.125,"standard_error":0.0})");
  CHECK(json["controls"].back().dump() ==
        R"({"order":"random","position":1,"layer":1,"neurons":2,"score":0.140625,"indirect_effect":0.015625,)"
        R"("standard_error":0.0})");
  CHECK(json["half"].dump() == R"([{"position":1,"candidates":8,"neurons":2},)"
                               R"({"position":1,"layer":0,"candidates":4,"neurons":null},)"
                               R"({"position":1,"layer":1,"candidates":4,"neurons":2}])");
  CHECK_FALSE(neurons_json(neuron_record()).contains("sets_by_layer"));
}

TEST_CASE("neurons that were given have no estimates and no sets") {
  auto record = neuron_record();
  auto& neurons = *record.trace.neurons;
  neurons.given = true;
  for (auto& effect : neurons.effects) effect.estimate = kNan;
  const auto json = neurons_json(record);
  CHECK(json["ranked_by"] == "given");
  CHECK(json["effects"][0]["estimate"].is_null());
  for (const auto* name : {"sets", "sets_by_layer", "controls", "half"}) CHECK_FALSE(json.contains(name));
}

TEST_CASE("how neurons were ranked is told as the option takes it") {
  auto record = neuron_record();
  record.trace.neurons->ranked_by = {NeuronRule::Which::kIntegrated, 8};
  CHECK(neurons_json(record)["ranked_by"] == "integrated:8");
  record.trace.neurons->ranked_by = {NeuronRule::Which::kNone, 1};
  CHECK(neurons_json(record)["ranked_by"] == "none");
}

TEST_CASE("when noising, a neuron's effect is what is lost") {
  auto record = neuron_record();
  record.options.direction = Direction::kNoising;
  const auto json = neurons_json(record);
  CHECK(json["effects"][0]["indirect_effect"] == 0.25);
  CHECK(json["sets"][3]["indirect_effect"] == 0.0625);
  CHECK(json["controls"][1]["indirect_effect"] == 0.375);
}

TEST_CASE("measures and other targets stand in each effect, set and control, those only that were asked for") {
  auto record = neuron_record();
  record.options.measures = {Measure::kNormalised, Measure::kRank};
  record.prompt.foil = 5;
  record.prompt.other_targets = {6};
  record.texts.other_targets = {" other"};
  record.texts.foil = " foil";
  record.trace.measured = {{{Measure::kLogitDifference, 0}, 4, 2, 0.5},
                           {{Measure::kRank, 0}, 1, 9, 3},
                           {{Measure::kProbability, 1}, 0.25, 0.5, 0}};
  auto& neurons = *record.trace.neurons;
  const auto fill = [](RunScore& run) { run.measured = {{3, 0.5}, {7, kNan}, {0.375, 0.125}}; };
  for (auto& effect : neurons.effects) fill(effect.run);
  for (auto& set : neurons.sets) fill(set.run);
  for (auto& control : neurons.controls) fill(control.set.run);
  const auto json = neurons_json(record);
  for (const auto* name : {"effects", "sets", "controls"}) {
    CHECK(json[name][0]["measures"].dump() == R"({"rank":{"value":7.0,"standard_error":null},)"
                                              R"("normalised":{"value":0.5,"standard_error":null}})");
    CHECK(json[name][0]["other_targets"].dump() == R"([{"target_ids":[6],"score":0.375,"standard_error":0.125}])");
  }
  CHECK(to_json(record)["other_targets"][0]["grids"].empty());
  record.options.measures = {Measure::kLogitDifference};
  CHECK(neurons_json(record)["effects"][0]["measures"].dump() ==
        R"({"logit_difference":{"value":3.0,"standard_error":0.5}})");
}

TEST_CASE("what does not exist of a neuron is null") {
  auto record = neuron_record();
  record.trace.neurons->effects[0].run.standard_error = kNan;
  record.trace.neurons->sets[0].run.score = kNan;
  const auto json = nlohmann::json::parse(to_line(to_json(record)))["neurons"];
  CHECK(json["effects"][0]["standard_error"].is_null());
  CHECK(json["sets"][0]["score"].is_null());
  CHECK(json["sets"][0]["indirect_effect"].is_null());
}

TEST_CASE("a batch's header says what is asked of neurons, and lists them last among the kinds") {
  BatchRecord batch;
  batch.options.trace.kinds = {Kind::kState};
  auto json = to_json(batch);
  CHECK(json["kinds"].dump() == R"(["state"])");
  CHECK_FALSE(json.contains("neurons"));
  auto& neurons = batch.options.trace.neurons.emplace();
  json = to_json(batch);
  CHECK(json["kinds"].dump() == R"(["state","neuron"])");
  CHECK(json["neurons"].dump() ==
        R"({"positions":"subject-last","layers":null,"top":20,"rank_by":"gradient","given":null,"sets":null})");
  neurons.layers = LayerRange{3, 8};
  neurons.top = 5;
  neurons.ranking = {NeuronRule::Which::kIntegrated, 8};
  neurons.sets_by_layer = true;
  CHECK(to_json(batch)["neurons"].dump() ==
        R"({"positions":"subject-last","layers":[3,8],"top":5,"rank_by":"integrated:8","given":null,"sets":"layer"})");
}

TEST_CASE("of neurons that are given the header has no settings that they leave aside") {
  NeuronOptions options;
  options.given = {{3, 117}};
  CHECK(settings_json(options).dump() ==
        R"({"positions":"subject-last","layers":null,"top":null,"rank_by":null,"given":[[3,117]],"sets":null})");
  options.given.push_back({5, 9});
  CHECK(settings_json(options)["given"].dump() == "[[3,117],[5,9]]");
}

}  // namespace rometrace::neuron_json_test

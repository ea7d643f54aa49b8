#include "report/neuron_text.hpp"

#include <algorithm>
#include <limits>
#include <string>

#include "checks.hpp"
#include "report/neuron_record.hpp"
#include "report/widest_line.hpp"
#include "rometrace/report/terminal.hpp"
#include "rometrace/text/utf8.hpp"

namespace rometrace::neuron_text_test {
namespace {

using testing::neuron_record;
using testing::neuron_record_by_layer;
using testing::widest_line;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

/// Sentences without their line breaks.
std::string unwrapped(const std::string& text) {
  std::string line;
  for (const char c : text) {
    if (c != '\n' && c != ' ') {
      line += c;
    } else if (line.empty() || line.back() != ' ') {
      line += ' ';
    }
  }
  return line;
}

std::string without_colors(std::string text) {
  for (const auto* sequence : {"\x1b[1m", "\x1b[0m"}) {
    for (auto at = text.find(sequence); at != std::string::npos; at = text.find(sequence)) text.erase(at, 4);
  }
  return text;
}

std::string rendered(const TraceRecord& record, int columns = 80) {
  return render_heat_maps(record, {.columns = columns, .color = false});
}

}  // namespace

TEST_CASE("neurons are a table of the best, with how few of them carry half below") {
  CHECK(rendered(neuron_record()) ==
        "neuron: one MLP neuron restored at \" Davis\" (position 1) where the subject is\n"
        "corrupted by noise: what that adds to the probability of \" trumpet\", in percent.\n"
        "The 2 of 8 that the gradient ranks first.\n"
        "layer  neuron  effect  error  estimate  clean  corrupted  promotes\n"
        "    1       3   12.50   6.25     12.50      2       -0.5  ·trumpet ·sax\n"
        "    0       2   -6.25   3.12      6.25   0.25          4  #100\n"
        "\n"
        "\"Miles Davis plays the\" -> \" trumpet\": probability 0.5 clean, 0.125 with the\n"
        "  subject corrupted: total effect 0.375.\n"
        "Strongest neuron: layer 1, neuron 3 at \" Davis\" (last subject token): brings\n"
        "  back 0.125 (33 % of the total effect).\n"
        "2 of 8 neurons at \" Davis\" (last subject token) bring back half of what all do\n"
        "  (18.8 % of 31.2 %); the 2 that change most bring back 6.25 %, 2 random ones\n"
        "  3.12 %.\n");
}

TEST_CASE("sets of each layer are a table of their own") {
  CHECK(has(rendered(neuron_record_by_layer()),
            "#100\n"
            "\n"
            "layers: how many of a layer's 4 neurons at \" Davis\" bring back half of what all\n"
            "of them do; the best, those that change most, and random ones in sets of about\n"
            "that size, in percent.\n"
            "layer    all  half  size  best  changed  random\n"
            "    0   0.00  none\n"
            "    1  12.50     2     2  6.25     3.12    1.56\n"
            "\n"));
}

TEST_CASE("neurons stand behind the maps, whose introduction stays") {
  auto record = neuron_record();
  auto& grid = record.trace.grids.emplace_back();
  grid.positions = {1};
  grid.scores = {0.25, 0.375};
  const auto text = rendered(record);
  const auto introduction = text.find("Probability of \" trumpet\" in percent when"),
             map = text.find("state: the block"), table = text.find("neuron: one MLP"),
             found = text.find("Strongest state"), few = text.find("2 of 8 neurons at");
  CHECK(introduction == 0);
  CHECK(introduction < map);
  CHECK(map < table);
  CHECK(table < found);
  CHECK(found < few);
  CHECK(few != std::string::npos);
  CHECK_FALSE(has(rendered(neuron_record()), "Probability of"));
}

TEST_CASE("of several positions each neuron's token is shown") {
  auto record = neuron_record();
  auto& neurons = *record.trace.neurons;
  neurons.positions = {0, 1};
  neurons.effects[1].position = 0;
  neurons.half.insert(neurons.half.begin(), {0, {}, 8, {}});
  const auto text = rendered(record);
  CHECK(has(text, "restored at one of 2 positions where"));
  CHECK(has(text,
            "layer  neuron  token   effect  error  estimate  clean  corrupted  promotes\n"
            "    1       3  ·Davis   12.50   6.25     12.50      2       -0.5  ·trumpet ·sax\n"
            "    0       2  Miles    -6.25   3.12      6.25   0.25          4  #100\n"));
  CHECK(has(text, "All 8 neurons at \"Miles\" (first subject token) together bring nothing back, so"));
}

TEST_CASE("where all neurons together do nothing there is no half, and their effect is told") {
  auto record = neuron_record();
  auto& neurons = *record.trace.neurons;
  neurons.half[0].neurons.reset();
  neurons.sets.back().run.score = 0.0625;
  CHECK(has(rendered(record),
            "All 8 neurons at \" Davis\" (last subject token) together bring nothing back\n"
            "  (-6.25 %), so there is no half of it.\n"));
  for (auto& effect : neurons.effects) effect.run.score = 0.0625;
  CHECK(has(rendered(record), "No neuron that was run brings anything back.\n"));
}

TEST_CASE("between the sizes of sets the nearest is told, and one neuron is one") {
  auto record = neuron_record();
  auto& half = record.trace.neurons->half[0];
  half.neurons = 3;  // 2 and 4 are as near
  CHECK(
      has(unwrapped(rendered(record)),
          "3 of 8 neurons at \" Davis\" (last subject token) bring back half of what all do (all: 31.2 %); the best 2 "
          "bring back 18.8 %, the 2 that change most bring back 6.25 %, 2 random ones 3.12 %. "));
  half.neurons = 1;
  CHECK(has(unwrapped(rendered(record)),
            "1 of 8 neurons at \" Davis\" (last subject token) brings back half of what all do (12.5 % of 31.2 %); the "
            "one that changes most brings back 0 %, a random one 0 %. "));
  half.neurons = 8;  // in any order they are the same ones
  CHECK(has(unwrapped(rendered(record)),
            "(31.2 % of 31.2 %); the 8 that change most bring back 31.2 %, 8 random ones 31.2 %. "));
}

TEST_CASE("when noising, neurons take away") {
  auto record = neuron_record_by_layer();
  record.options.direction = Direction::kNoising;
  const auto text = rendered(record);
  CHECK(has(
      unwrapped(text),
      "neuron: one MLP neuron corrupted in the clean run at \" Davis\" (position 1), by its value where the subject "
      "is corrupted by noise: what that takes off the probability of \" trumpet\", in percent."));
  CHECK(has(text, "    0       2   43.75"));
  CHECK(has(text, "Strongest neuron: layer 0, neuron 2 at \" Davis\" (last subject token): takes away\n  0.438"));
  CHECK(has(text, " take away half of what all do\n  (18.8 % of 6.25 %); the 2 that change most take away 31.2 %"));
  CHECK(has(text, "at \" Davis\" take away half of what all"));
  record.trace.neurons->half[0].neurons.reset();
  CHECK(has(rendered(record), "together take nothing away"));
  CHECK_FALSE(has(text, "bring"));
}

TEST_CASE("how neurons were chosen is said") {
  auto record = neuron_record();
  auto& neurons = *record.trace.neurons;
  neurons.ranked_by = {NeuronRule::Which::kIntegrated, 8};
  CHECK(has(rendered(record), "The 2 of 8 that 8 gradients on the way rank first."));
  neurons.ranked_by = {NeuronRule::Which::kNone, 1};
  CHECK(has(rendered(record), "The 2 of 8 with the largest effects."));
  neurons.candidates = 2;
  CHECK(has(rendered(record), "All 2 of them."));
  neurons.given = true;
  neurons.sets.clear();
  neurons.controls.clear();
  neurons.half.clear();
  CHECK(has(rendered(record), "Those that were named."));
  CHECK_FALSE(has(rendered(record), "half"));
}

TEST_CASE("what there is none of has no column, and small effects have their digits") {
  auto record = neuron_record();
  auto& neurons = *record.trace.neurons;
  for (auto& effect : neurons.effects) effect.estimate = effect.run.standard_error = kNan;
  CHECK(has(rendered(record), "layer  neuron  effect  clean  corrupted  promotes\n"));
  neurons.effects[0].run.score = 0.12534;
  neurons.effects[1].run.score = 0.12499;
  CHECK(has(rendered(record), "    1       3   0.0340      2"));
  CHECK(has(rendered(record), "    0       2  -0.0010   0.25"));
}

TEST_CASE("a weak corruption is called one, and then nothing is a share of the total effect") {
  auto record = neuron_record();
  record.trace.high_score = record.trace.prediction_score = 0.126;
  const auto text = rendered(record);
  CHECK(has(unwrapped(text), "The corruption hardly lowers the answer's probability, so the neurons say little."));
  CHECK(has(unwrapped(text), "raises it by 0.125."));
  CHECK_FALSE(has(text, "of the total effect"));
  record.trace.low_score = kNan;
  CHECK(has(unwrapped(rendered(record)), "so the neurons say nothing."));
}

TEST_CASE("in any width and style the table of neurons fits, escapes, and shows no number that is none") {
  auto wide = neuron_record_by_layer(), several = neuron_record_by_layer(), broken = neuron_record_by_layer();
  several.trace.neurons->positions = {0, 1};
  several.texts.of_neurons[7] = std::string("\n\x1b[31m") + "a token that is longer than any column for it";
  for (auto& effect : wide.trace.neurons->effects) {
    effect.layer = 9999;
    effect.neuron = 24575;
    effect.estimate = -1;
    effect.run = {-0.875, 1, {}};
    effect.clean = effect.corrupted = -1.234e-105;
  }
  broken.trace.low_score = kNan;
  for (auto& effect : broken.trace.neurons->effects) {
    effect.run = {kNan, kNan, {}};
    effect.clean = effect.corrupted = kNan;
  }
  for (const auto* record : {&wide, &several, &broken}) {
    for (int columns = 10; columns <= 120; ++columns) {
      for (const bool color : {false, true}) {
        for (const bool unicode : {false, true}) {
          const auto text = render_heat_maps(*record, {.columns = columns, .color = color, .unicode = unicode});
          const auto plain = without_colors(text);
          CAPTURE(columns);
          CHECK(widest_line(plain) <= std::max(20, columns));
          CHECK_FALSE(find_invalid_utf8(text));
          CHECK_FALSE(has(plain, "nan"));
          CHECK_FALSE(has(plain, "\x1b"));
          CHECK(has(plain, "effect"));
          CHECK(has(text, "\x1b[1mneuron\x1b[0m: ") == color);
          CHECK((color || text == plain));
          if (!unicode) CHECK(std::all_of(plain.begin(), plain.end(), [](char c) { return c >= 0; }));
        }
      }
    }
  }
  CHECK(has(rendered(wide, 20), "layer neuron  effect\n 9999  24575 -100.00\n"));
  CHECK(has(rendered(several, 40), "token"));
  CHECK_FALSE(has(rendered(several, 40), "estimate"));
  CHECK(has(rendered(broken), "?"));
}

}  // namespace rometrace::neuron_text_test

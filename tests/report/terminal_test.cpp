#include "rometrace/report/terminal.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "checks.hpp"
#include "report/widest_line.hpp"
#include "rometrace/text/utf8.hpp"

namespace rometrace::terminal_test {

namespace {

using testing::widest_line;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

struct Example {
  TraceRecord record;
  Trace& trace = record.trace;
  TracePrompt& prompt = record.prompt;
  TokenTexts& texts = record.texts;
  TraceOptions& options = record.options;

  Example() = default;
  Example(const Example& other) : record(other.record) {}

  std::string render(const TerminalStyle& style) const { return render_heat_maps(record, style); }
  std::string render() const { return render({.columns = 100, .color = false}); }

  CausalGrid& add(Kind kind, std::int64_t window, std::vector<std::int64_t> positions, double base,
                  std::int64_t heads = 1) {
    auto& grid = trace.grids.emplace_back();
    grid.kind = kind;
    grid.window = window;
    grid.positions = std::move(positions);
    grid.heads = heads;
    const auto cells = grid.positions.size() * static_cast<std::size_t>(trace.layers * heads);
    grid.scores.assign(cells, base);
    grid.standard_error.assign(cells, 0.0);
    return grid;
  }

  CausalGrid& add_knockout(std::int64_t window, std::vector<KnockoutGroup> groups) {
    auto& grid = add(Kind::kKnockout, window, {}, 0);
    grid.groups = std::move(groups);
    grid.scores.assign(grid.groups.size() * static_cast<std::size_t>(trace.layers), trace.high_score);
    grid.standard_error.assign(grid.scores.size(), kNan);
    return grid;
  }
};

std::vector<std::int64_t> up_to(std::int64_t end) {
  std::vector<std::int64_t> positions(static_cast<std::size_t>(end));
  std::iota(positions.begin(), positions.end(), std::int64_t{0});
  return positions;
}

/// A prompt of these tokens, without grids.
Example bare(std::vector<std::string> tokens, std::int64_t layers) {
  Example result;
  auto& trace = result.trace;
  trace.answer_ids = {0};
  trace.tokens = static_cast<std::int64_t>(tokens.size());
  trace.layers = layers;
  trace.samples = 10;
  trace.high_score = 0.9;
  trace.low_score = 0.1;
  trace.low_standard_error = 0.01;
  trace.prediction_score = 0.9;
  for (const auto& token : tokens) {
    result.prompt.prompt += token;
    result.prompt.token_ids.push_back(static_cast<std::int32_t>(result.prompt.token_ids.size()));
  }
  result.prompt.subject_range = {0, std::min<std::size_t>(2, tokens.size())};
  result.texts.prompt = std::move(tokens);
  result.texts.answer = result.texts.prediction = " trumpet";
  return result;
}

/// Likewise; each grid is `base` but for one cell.
Example example(const std::vector<std::string>& tokens, std::int64_t layers, double base = 0.1) {
  auto result = bare(tokens, layers);
  for (const auto kind : {Kind::kState, Kind::kMlp, Kind::kAttn}) {
    result.add(kind, kind == Kind::kState ? 1 : 10, up_to(result.trace.tokens), base);
  }
  return result;
}

/// "Miles Davis plays the" without grids.
Example bare_miles() {
  return bare({"Miles", " Davis", " plays", " the"}, 4);
}

Example miles_davis() {
  auto result = example({"Miles", " Davis", " plays", " the"}, 4);
  result.trace.grids[0].scores[1 * 4 + 2] = 0.7;
  result.trace.grids[0].scores[3 * 4 + 3] = 0.9;
  result.trace.grids[1].scores[1 * 4 + 1] = 0.5;
  result.trace.grids[2].scores[3 * 4 + 3] = 0.3;
  return result;
}

std::string without_colors(const std::string& text) {
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text.compare(i, 2, "\x1b[") != 0) {
      plain += text[i];
      continue;
    }
    i = text.find_first_not_of("0123456789;", i + 2);
    REQUIRE((i != std::string::npos && text[i] == 'm'));
  }
  return plain;
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

/// All that may not happen, whatever is shown in whatever style.
void check_sound(const std::string& text, const TerminalStyle& style) {
  const auto plain = without_colors(text);
  CHECK_FALSE(find_invalid_utf8(text));
  CHECK(text.ends_with('\n'));
  CHECK(std::none_of(plain.begin(), plain.end(), [](char c) { return (c >= 0 && c < ' ' && c != '\n') || c == 0x7F; }));
  if (!style.unicode) {
    CHECK(std::all_of(plain.begin(), plain.end(), [](char c) { return c >= 0; }));
  }
  if (!style.color) {
    CHECK(text == plain);
  }
  CHECK_FALSE(has(plain, "nan"));
  CHECK_FALSE(has(plain, "inf"));
  CHECK(widest_line(plain) <= std::max(20, style.columns));
}

}  // namespace

TEST_CASE("few layers are shown as percentages with the findings below") {
  const auto text = miles_davis().render({.columns = 80, .color = false});
  CHECK(text ==
        "Probability of \" trumpet\" in percent when the subject (*) is corrupted by noise\n"
        "and one thing is restored.\n"
        "\n"
        "state: the block's output restored at one layer\n"
        " Miles*   10   10   10   10\n"
        "·Davis*   10   10   70   10\n"
        "·plays    10   10   10   10\n"
        "  ·the    10   10   10   90\n"
        " layer     0    1    2    3\n"
        "        10 % corrupted, 90 % largest\n"
        "\n"
        "mlp: the MLP's output restored in 10 layers around each layer\n"
        " Miles*   10   10   10   10\n"
        "·Davis*   10   50   10   10\n"
        "·plays    10   10   10   10\n"
        "  ·the    10   10   10   10\n"
        " layer     0    1    2    3\n"
        "        10 % corrupted, 50 % largest\n"
        "\n"
        "attn: the attention's output restored in 10 layers around each layer\n"
        " Miles*   10   10   10   10\n"
        "·Davis*   10   10   10   10\n"
        "·plays    10   10   10   10\n"
        "  ·the    10   10   10   30\n"
        " layer     0    1    2    3\n"
        "        10 % corrupted, 30 % largest\n"
        "\n"
        "\"Miles Davis plays the\" -> \" trumpet\": probability 0.9 clean, 0.1 with the\n"
        "  subject corrupted: total effect 0.8.\n"
        "Strongest state before the last token: \" Davis\" (last subject token), layer 2:\n"
        "  brings back 0.6 (75 % of the total effect).\n"
        "Strongest mlp: \" Davis\" (last subject token), around layer 1: brings back 0.4\n"
        "  (50 % of the total effect).\n"
        "Strongest attn: \" the\" (last token), around layer 3: brings back 0.2 (25 % of\n"
        "  the total effect).\n");
}

TEST_CASE("colours change nothing but colours") {
  const auto with = without_colors(miles_davis().render({.columns = 80, .color = true, .true_color = true}));
  CHECK(has(with, "·Davis*   10   10   70   10 \n"));
  CHECK(has(miles_davis().render({.columns = 80, .true_color = true}), "48;2;"));
  CHECK_FALSE(has(miles_davis().render({.columns = 80, .true_color = false}), "48;2;"));
}

TEST_CASE("many layers are tenths of the range from low to the largest") {
  auto many = example({"A", "b", "c"}, 48);
  for (int layer = 0; layer < 48; ++layer) {
    many.trace.grids[0].scores[static_cast<std::size_t>(48 + layer)] = 0.1 + 0.8 * layer / 47.0;
  }
  many.trace.grids[0].scores[5] = 0.01;
  const auto text = many.render({.columns = 80, .color = false});
  CHECK(has(text, "     A* ................................................\n"));
  CHECK(has(text, "     b* .....1111122222333344444555556666777778888899999\n"));
  CHECK(has(text, ". is 0.1 corrupted, 9 is 0.9 largest"));
  CHECK(has(text, " layer  0    5    10   15   20   25   30   35   40   45\n"));
}

TEST_CASE("layers that do not fit are merged by their largest, and that is said") {
  auto many = example({"A", "b", "c"}, 48);
  many.trace.grids[0].scores[48 + 47] = 0.9;
  const auto text = many.render({.columns = 30, .color = false});
  CHECK(has(text, "Each column is the\nlargest of 3 layers."));
  CHECK(has(text, "     b* ...............9\n"));
  CHECK(has(text, " layer  0  10 20  30 40\n"));
}

TEST_CASE("numbers that do not exist are never printed as such") {
  auto broken = example({"A", "b", "c"}, 4, kNan);
  broken.trace.low_score = kNan;
  for (const int columns : {20, 30, 80}) {
    for (const bool color : {false, true}) {
      const TerminalStyle style{.columns = columns, .color = color};
      const auto text = broken.render(style);
      check_sound(text, style);
      CHECK(has(text, "?"));
    }
  }
  CHECK(has(broken.render({.columns = 100, .color = false}), "A probability is not a number"));
}

TEST_CASE("a corruption without effect is called one") {
  auto none = example({"A", "b", "c"}, 4);
  none.trace.high_score = 0.1;
  CHECK(has(none.render({.columns = 100, .color = false}), "does not lower the answer's probability"));
  none.trace.high_score = 0.104;
  CHECK(has(none.render({.columns = 100, .color = false}), "hardly lowers the answer's probability"));
  none.trace.high_score = 0.13;
  none.trace.low_standard_error = 0.02;
  CHECK(has(none.render({.columns = 100, .color = false}), "hardly lowers the answer's probability"));
  none.trace.low_standard_error = kNan;
  CHECK_FALSE(has(none.render({.columns = 100, .color = false}), "hardly"));
  CHECK(has(none.render({.columns = 100, .color = false}), "No mlp brings anything back."));
  CHECK(has(none.render({.columns = 100, .color = false}), "10 % corrupted, and no cell is above it"));
}

TEST_CASE("a target that is not the prediction is told beside it") {
  auto other = miles_davis();
  other.texts.prediction = " piano";
  other.trace.prediction_id = 1;
  CHECK(has(other.render({.columns = 100, .color = false}), "The model itself says \" piano\": probability 0.9."));
  CHECK_FALSE(has(miles_davis().render({.columns = 100, .color = false}), "itself"));
}

TEST_CASE("severed states say what is held, and what becomes of the strongest state") {
  auto severed = bare_miles();
  severed.add(Kind::kState, 1, {1, 3}, 0.1).scores[2] = 0.7;
  severed.add(Kind::kStateMlpSevered, 1, {1, 3}, 0.1).scores[2] = 0.3;
  severed.add(Kind::kStateAttnSevered, 1, {1, 3}, 0.1).scores[2] = 0.75;
  const auto text = severed.render();
  CHECK(has(text,
            "state with MLP severed: the block's output restored at one layer, the position's MLP outputs held\n"
            "·Davis*   10   10   30   10\n"
            "  ·the    10   10   10   10\n"
            " layer     0    1    2    3\n"
            "        10 % corrupted, 30 % largest\n"));
  CHECK(has(text,
            "state with attention severed: the block's output restored at one layer, the position's attention\n"
            "outputs held\n"));
  CHECK(text.ends_with(
      "Strongest state before the last token: \" Davis\" (last subject token), layer 2: brings back 0.6 (75 %\n"
      "  of the total effect).\n"
      "With its MLP severed the strongest state falls from 0.7 to 0.3 (layer 2, \" Davis\").\n"
      "With its attention severed the strongest state rises from 0.7 to 0.75 (layer 2, \" Davis\").\n"));
  severed.trace.grids[2].scores[2] = 0.7001;
  CHECK(has(severed.render(), "With its attention severed the strongest state stays at 0.7 (layer 2, \" Davis\").\n"));
  severed.trace.grids.erase(severed.trace.grids.begin());
  CHECK(has(severed.render(),
            "Strongest state with MLP severed before the last token: \" Davis\" (last subject token), layer 2:\n"
            "  brings back 0.2 (25 % of the total effect).\n"));
}

TEST_CASE("the last token's state is told where it is the only one") {
  auto last = bare_miles();
  last.add(Kind::kState, 1, {3}, 0.1).scores[3] = 0.9;
  CHECK(has(last.render(),
            "Strongest state: \" the\" (last token), layer 3: brings back 0.8 (100 % of the total effect"));
}

TEST_CASE("of heads the position with the strongest is shown") {
  auto heads = bare_miles();
  auto& grid = heads.add(Kind::kHead, 3, {1, 3}, 0.1, 2);
  grid.scores[(1 * 4 + 2) * 2 + 1] = 0.5;
  grid.scores[(0 * 4 + 1) * 2 + 0] = 0.2;
  const auto text = heads.render();
  CHECK(has(text,
            "head: one head's output at \" the\" (position 3, which has the strongest) restored in 3 layers around\n"
            "each layer\n"
            "head 0    10   10   10   10\n"
            "head 1    10   10   50   10\n"
            " layer     0    1    2    3\n"
            "        10 % corrupted, 50 % largest\n"));
  CHECK(text.ends_with(
      "Strongest head: around layer 2, head 1 at \" the\" (last token): brings back 0.4 (50 % of the total\n"
      "  effect).\n"));
}

TEST_CASE("of heads at one position that one is shown, whatever the scores are") {
  auto heads = bare_miles();
  heads.add(Kind::kHead, 1, {1}, 0.1, 12);
  const auto text = heads.render();
  CHECK(has(text, "head: one head's output at \" Davis\" (position 1) restored at one layer\n head 0    10"));
  CHECK(has(text, "head 11    10   10   10   10\n  layer     0    1    2    3\n"));
  CHECK(has(text, "No head brings anything back.\n"));
  heads.trace.layers = 48;
  heads.trace.grids[0].scores.assign(48 * 12, kNan);
  CHECK(has(heads.render({.columns = 20, .color = false}), "\n    11  ????????????\n layer  0    20   40\n"));
}

TEST_CASE("a knockout has a row for each group, in changes of the probability") {
  auto cut = bare_miles();
  auto& grid = cut.add_knockout(9, {{"subject", {0, 2}}, {"after", {2, 3}}, {"last", {3, 4}}});
  grid.scores[2] = 0.333;
  grid.scores[4 + 1] = 0.81;
  grid.scores[8 + 3] = 0.9981;
  CHECK(cut.render() ==
        "knockout: attention from the last token cut in 9 layers around each layer\n"
        "subject     0    0  -63    0\n"
        "  after     0  -10    0    0\n"
        "   last     0    0    0  +11\n"
        "  layer     0    1    2    3\n"
        "         change of the probability in percent of the clean 90 %\n"
        "\n"
        "\"Miles Davis plays the\" -> \" trumpet\": probability 0.9 clean, 0.1 with the subject corrupted: total\n"
        "  effect 0.8.\n"
        "Cutting attention to the subject around layer 2 lowers the probability by 63 %; to the tokens after\n"
        "  the subject by 10 % (around layer 1).\n");
  CHECK(has(without_colors(cut.render({.columns = 80})), "         +11 % change                  -100 %\n"));
  cut.trace.answer_ids = {0, 1};
  cut.trace.grids[0].window = 1;
  CHECK(has(cut.render(), "knockout: attention from the last token and the answer's tokens cut at one layer\n"));
  CHECK(has(cut.render(), "Cutting attention to the subject in layer 2 lowers"));
}

TEST_CASE("a knockout of many layers is tenths, the lowest of those merged") {
  auto cut = bare({"A", "b", "c"}, 48);
  auto& grid = cut.add_knockout(9, {{"before", {0, 1}}, {"last", {2, 3}}});
  grid.scores[20] = 0;
  grid.scores[47] = 0.8999;
  const auto text = cut.render({.columns = 40, .color = false});
  CHECK(has(text, "before  ..........9.............\n  last  ........................\n"));
  CHECK(has(text, ". is 0 % change, 9 is -100 %\n        each column is the lowest of 2\n        layers\n"));
  grid.scores[20] = 0.9;
  CHECK(has(cut.render(),
            "Cutting attention to the tokens before the subject around layer 47 lowers the probability by\n"
            "  less than 1 %.\n"));
  grid.scores[47] = 0.9;
  CHECK(has(cut.render(), "\nCutting attention lowers the probability nowhere.\n"));
}

TEST_CASE("a knockout that multiplies a small probability still fits its cells") {
  auto cut = bare_miles();
  cut.trace.high_score = 1e-9;
  auto& grid = cut.add_knockout(9, {{"subject", {0, 2}}});
  grid.scores = {1, 0, 1e-9, kNan};
  CHECK(has(cut.render(), "subject  >999 -100    0    ?\n"));
}

TEST_CASE("noising shows what is taken away, from the clean probability down") {
  auto noising = bare_miles();
  noising.options.direction = Direction::kNoising;
  noising.add(Kind::kState, 1, up_to(4), 0.9).scores[1 * 4 + 2] = 0.2;
  noising.add(Kind::kMlp, 10, up_to(4), 0.9).scores[0] = 0.95;
  const auto text = noising.render({.columns = 80, .color = false});
  CHECK(text ==
        "Probability of \" trumpet\" in percent when the prompt is clean and one thing is\n"
        "corrupted: taken from a run where the subject (*) is corrupted by noise.\n"
        "\n"
        "state: the block's output corrupted at one layer\n"
        " Miles*   90   90   90   90\n"
        "·Davis*   90   90   20   90\n"
        "·plays    90   90   90   90\n"
        "  ·the    90   90   90   90\n"
        " layer     0    1    2    3\n"
        "        90 % clean, 20 % lowest\n"
        "\n"
        "mlp: the MLP's output corrupted in 10 layers around each layer\n"
        " Miles*   95   90   90   90\n"
        "·Davis*   90   90   90   90\n"
        "·plays    90   90   90   90\n"
        "  ·the    90   90   90   90\n"
        " layer     0    1    2    3\n"
        "        90 % clean, and no cell is below it\n"
        "\n"
        "\"Miles Davis plays the\" -> \" trumpet\": probability 0.9 clean, 0.1 with the\n"
        "  subject corrupted: total effect 0.8.\n"
        "Strongest state before the last token: \" Davis\" (last subject token), layer 2:\n"
        "  takes away 0.7 (88 % of the total effect).\n"
        "No mlp takes anything away.\n");
}

TEST_CASE("noising merges layers by their lowest, which is the darkest") {
  auto noising = bare({"A", "b", "c"}, 48);
  noising.options.direction = Direction::kNoising;
  noising.trace.low_score = 0.87;
  noising.add(Kind::kState, 1, up_to(3), 0.9).scores[48 + 47] = 0.2;
  const auto text = noising.render({.columns = 30, .color = false});
  CHECK(has(text, "Each\ncolumn is the lowest of 3\nlayers.\n"));
  CHECK(has(text, "     b* ...............9\n"));
  CHECK(has(text, ". is 0.9 clean, 9 is 0.2\nlowest\n"));
  CHECK(has(noising.render(), "layer 47: lowers it by 0.7.\n"));
}

TEST_CASE("the introduction says what was done to the subject") {
  auto shown = example({"Miles", " Davis", " plays", " the"}, 4);
  const auto introduction = [&] {
    const auto text = shown.render({.columns = 200, .color = false});
    return text.substr(0, text.find('\n'));
  };
  const std::string start = "Probability of \" trumpet\" in percent when ";
  auto& corruption = shown.options.corruption;
  corruption.replace = true;
  CHECK(introduction() == start + "the subject (*) is replaced by noise and one thing is restored.");
  corruption.method = CorruptionMethod::kZero;
  CHECK(introduction() == start + "the subject (*) is set to zero and one thing is restored.");
  CHECK(has(shown.render(), "0.1 with the subject set to zero:\n  total effect 0.8."));
  corruption.method = CorruptionMethod::kMean;
  CHECK(introduction() == start + "the subject (*) is set to a mean embedding and one thing is restored.");
  corruption.method = CorruptionMethod::kTokens;
  shown.record.counter = CounterPrompt{"Louis Armstrong plays the", "Louis Armstrong", {7, 8, 2, 3}};
  shown.prompt.counter_ids = shown.record.counter->token_ids;
  CHECK(introduction() == start + "the subject (*) is replaced by \"Louis Armstrong\" and one thing is restored.");
  CHECK(has(shown.render(), "0.1 with the subject replaced by\n  \"Louis Armstrong\": total effect 0.8."));
}

TEST_CASE("with a counter prompt the tokens that differ are marked") {
  auto shown = bare_miles();
  shown.add(Kind::kState, 1, up_to(4), 0.1);
  shown.options.corruption.method = CorruptionMethod::kTokens;
  shown.record.counter = CounterPrompt{"Louis Davis\x1b played the", std::nullopt, {7, 1, 8, 3}};
  shown.prompt.counter_ids = shown.record.counter->token_ids;
  CHECK(
      has(shown.render(),
          "Probability of \" trumpet\" in percent when the prompt is replaced by \"Louis Davis\\x1B played the\" (*:\n"
          "where they differ) and one thing is restored.\n"
          "\n"
          "state: the block's output restored at one layer\n"
          " Miles*   10   10   10   10\n"
          "·Davis    10   10   10   10\n"
          "·plays*   10   10   10   10\n"
          "  ·the    10   10   10   10\n"));
}

TEST_CASE("an approximation is called one") {
  auto shown = miles_davis();
  CHECK_FALSE(has(shown.render(), "approximation"));
  shown.record.run.engine = "gradient";
  CHECK(has(shown.render({.columns = 200, .color = false}),
            " restored. These scores are an approximation (attribution patching); --engine sweep computes them.\n"));
}

TEST_CASE("an answer of several tokens says so") {
  auto shown = miles_davis();
  shown.texts.answer = " New York City";
  shown.trace.answer_ids = {1, 2, 3};
  const auto text = shown.render();
  CHECK(has(text, "Probability of \" New York City\" (3 tokens) in percent when the subject (*)"));
  CHECK(has(text, "\"Miles Davis plays the\" -> \" New York City\" (3 tokens): probability 0.9 clean,"));
  CHECK(has(text, "\nThe model itself begins with \" trumpet\": probability 0.9.\n"));
  CHECK_FALSE(has(text, "ends its text"));
  shown.record.asked_tokens = 4;
  CHECK(has(shown.render(), "\nThe model ends its text after 3 tokens of 4.\n"));
}

TEST_CASE("measures and other targets are a table, or sentences where it is narrow") {
  auto shown = bare_miles();
  shown.add(Kind::kMlp, 10, up_to(4), 0.1);
  shown.texts.foil = " piano";
  shown.texts.other_targets = {"gui\ttar"};
  shown.options.measures = {Measure::kLogProbability,  Measure::kLogit,     Measure::kRank, Measure::kKl,
                            Measure::kLogitDifference, Measure::kNormalised};
  shown.trace.measured = {{{Measure::kLogProbability, 0}, -0.10536, -2.302, kNan},
                          {{Measure::kLogit, 0}, -33.25, -36.5, kNan},
                          {{Measure::kRank, 0}, 1, 12.42, kNan},
                          {{Measure::kKl, 0}, 0, 1.2345, kNan},
                          {{Measure::kLogitDifference, 0}, 4.2, -1.13, kNan},
                          {{Measure::kProbability, 1}, 1.2e-7, 0.02, kNan}};
  CHECK(
      shown.render().ends_with("No mlp brings anything back.\n"
                               "\n"
                               "measure                           clean  corrupted\n"
                               "probability of \" trumpet\"           0.9        0.1\n"
                               "log probability                  -0.105       -2.3\n"
                               "logit                             -33.2      -36.5\n"
                               "rank                                  1       12.4\n"
                               "KL divergence, nats                   0       1.23\n"
                               "logit difference to \" piano\"        4.2      -1.13\n"
                               "normalised logit difference           1          0\n"
                               "probability of \"gui\\ttar\"       1.2e-07       0.02\n"));
  const auto narrow = shown.render({.columns = 49, .color = false});
  CHECK(has(narrow, "\n\nProbability of \" trumpet\": 0.9 clean, 0.1\n  corrupted.\nLog probability: -0.105 clean,"));
  CHECK(has(narrow, "\nKL divergence, nats: 0 clean, 1.23 corrupted.\n"));
  // The logit difference is there for the normalised one.
  shown.options.measures = {Measure::kNormalised};
  CHECK_FALSE(has(shown.render(), "difference to"));
  CHECK(has(shown.render(), "normalised logit difference"));
  shown.trace.measured.clear();
  CHECK(has(shown.render(), "normalised probability             1          0\n"));
  shown.options.measures.clear();
  CHECK_FALSE(has(shown.render(), "measure"));
}

TEST_CASE("every kind and measure is sound in every width and style") {
  const std::vector<std::string> tokens = {"\x1b[31m", "\n\n\n\n\n\n\n", "\xE6\x97\xA5", std::string(300, 'x')};
  for (const std::int64_t layers : {1, 8, 48, 1000}) {
    for (const auto direction : {Direction::kDenoising, Direction::kNoising}) {
      auto shown = bare(tokens, layers);
      shown.options.direction = direction;
      shown.add(Kind::kState, 1, {0, 3}, 0.5);
      shown.add(Kind::kStateMlpSevered, 1, {0, 3}, 0.4);
      shown.add(Kind::kStateAttnSevered, 1, {0, 3}, kNan);
      shown.add(Kind::kHead, 1, {0, 3}, 0.3, 25);
      auto& cut = shown.add_knockout(9, {{"subject", {0, 2}}, {"after", {2, 3}}, {"last", {3, 4}}});
      cut.scores.front() = 0.1;
      cut.scores.back() = kNan;
      shown.texts.answer = shown.texts.foil.emplace(tokens[3]);
      shown.trace.answer_ids = {1, 2};
      shown.texts.other_targets = {tokens[0], tokens[1], tokens[3]};
      shown.options.measures = {Measure::kLogitDifference, Measure::kRank};
      shown.trace.measured = {{{Measure::kLogitDifference, 0}, -1.23456e-300, kNan, kNan},
                              {{Measure::kRank, 0}, 50257, 1e300, kNan},
                              {{Measure::kProbability, 1}, 0, 1, kNan},
                              {{Measure::kProbability, 2}, 0, 1, kNan},
                              {{Measure::kProbability, 3}, 0, 1, kNan}};
      shown.options.precision = 0.01;
      shown.options.corruption.method = CorruptionMethod::kTokens;
      shown.record.counter = CounterPrompt{tokens[0] + tokens[3], tokens[3] + tokens[1], {5, 6, 2, 3}};
      shown.prompt.counter_ids = shown.record.counter->token_ids;
      shown.record.run.engine = "gradient";
      for (const int columns : {1, 20, 21, 30, 40, 49, 50, 51, 80, 200, 100000}) {
        for (const bool color : {false, true}) {
          for (const bool unicode : {false, true}) {
            CAPTURE(layers);
            CAPTURE(columns);
            const TerminalStyle style{.columns = columns, .color = color, .true_color = false, .unicode = unicode};
            check_sound(shown.render(style), style);
          }
        }
      }
    }
  }
}

TEST_CASE("the draws that a precision took are told only if it was asked for") {
  auto shown = miles_davis();
  shown.trace.samples = 40;
  shown.trace.largest_error = 0.00912;
  CHECK_FALSE(has(shown.render(), "draws"));
  shown.options.precision = 0.01;
  CHECK(has(shown.render(),
            "\n40 draws: the largest standard error of a probability is 0.00912 (asked for: at most 0.01).\n"));
  shown.trace.largest_error = 0.02;
  CHECK(has(shown.render(),
            "\n40 draws, the most allowed: the largest standard error of a probability is still 0.02 (asked for: at\n"
            "  most 0.01).\n"));
}

TEST_CASE("a warning is of corruptions: it has a clause of its own, and none for a knockout alone") {
  auto shown = miles_davis();
  CHECK_FALSE(warning_of(shown.trace));
  shown.trace.low_score = 0.9;
  CHECK(warning_of(shown.trace) ==
        "the corruption does not lower the answer's probability, so there is no effect to trace and the grids say "
        "little");
  shown.trace.low_score = 0.87;
  CHECK(warning_of(shown.trace) == "the corruption hardly lowers the answer's probability, so the grids say little");
  CHECK(has(shown.render(), "\nThe corruption hardly lowers the answer's probability, so the grids say little.\n"));
  shown.trace.grids.clear();
  shown.add_knockout(9, {{"subject", {0, 2}}});
  CHECK_FALSE(warning_of(shown.trace));
  shown.trace.low_score = kNan;
  CHECK(warning_of(shown.trace) ==
        "a probability is not a number: the model's computation failed, so the grids say nothing");
}

TEST_CASE("every width and style is sound, whatever the tokens are") {
  const std::vector<std::vector<std::string>> prompts = {
      {"A"},
      {"Miles", " Davis", " plays"},
      {"\x1b[31m", "\n\n\n\n\n\n\n\n\n\n\n\n", "\xE2", "\x80\xAE", "\xE6\x97\xA5\xE6\x9C\xAC", "e\xCC\x81", "\xCC\x81",
       std::string(300, 'x'), std::string(40, '\x01'), ""}};
  for (const auto& tokens : prompts) {
    for (const std::int64_t layers : {1, 2, 8, 12, 48, 1000}) {
      auto shown = example(tokens, layers);
      shown.trace.grids[0].scores.back() = 1.0;
      shown.texts.answer = tokens.back();
      for (const int columns : {-1, 0, 1, 19, 20, 21, 30, 41, 80, 200, 100000}) {
        for (const bool color : {false, true}) {
          for (const bool unicode : {false, true}) {
            CAPTURE(layers);
            CAPTURE(columns);
            const TerminalStyle style{.columns = columns, .color = color, .true_color = false, .unicode = unicode};
            check_sound(shown.render(style), style);
          }
        }
      }
    }
  }
}

TEST_CASE("progress fits its width and tells the time that is left") {
  const TerminalStyle wide{.columns = 80};
  CHECK(render_progress(0, 240, 0, wide).ends_with("░ 0 %"));
  CHECK(render_progress(60, 240, 4, wide) == "██████████░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░ 25 %, 0:12 left");
  CHECK(render_progress(1, 3601, 1, {.columns = 80, .unicode = false}) ==
        "---------------------------------------- 0 %, 1:00:00 left");
  CHECK(render_progress(240, 240, 4, wide).ends_with("█ 100 %"));
  CHECK(render_progress(31, 240, 2, {.columns = 20}) == "12 %, 0:14 left");
  CHECK(render_progress(0, 0, 0, wide).ends_with("0 %"));
  CHECK(render_progress(5, 10, kNan, wide).ends_with("50 %"));
  for (int columns = -1; columns < 90; ++columns) {
    CHECK(widest_line(render_progress(7, 1000, 1e9, {.columns = columns})) <= std::max(1, columns - 1));
  }
}

}  // namespace rometrace::terminal_test

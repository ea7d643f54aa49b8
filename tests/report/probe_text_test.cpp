#include "rometrace/report/probe_text.hpp"

#include <nlohmann/json.hpp>

#include "checks.hpp"
#include "files.hpp"
#include "probe_records.hpp"
#include "report/widest_line.hpp"
#include "rometrace/text/json_line.hpp"

namespace rometrace::probe_text_test {
namespace {

using testing::Contains;
using testing::failed_probe_record;
using testing::probe_record;
using testing::widest_line;

ProbeSummary summary_of(const std::vector<ProbeRecord>& records) {
  ProbeSummary summary;
  for (const auto& record : records) summary.add(nlohmann::json::parse(to_line(to_json(record))), "probe.jsonl");
  return summary;
}

TEST_CASE("the summary of a probe is this table") {
  const auto summary = summary_of({probe_record("plays", {1, 1, 3}, 1), probe_record("plays", {9, 1, 1}, 1),
                                   probe_record("lies", {1}), failed_probe_record()});
  const auto text = render_probe_summary(summary, {.columns = 80});
  CHECK(text == R"(4 records: 3 probed, 1 failed (prompt 1). Known by said:2, over all wordings of
  a fact. 1 fact with too few wordings for that: only "said" counts them. In
  percent, with Wilson's 95 % intervals.

in the fact's own prompt   facts        said       known      known,       said,
                                                            not said   not known
lies                           1       100.0           -           -           -
                                  20.7-100.0
plays                          2        50.0       100.0        50.0         0.0
                                    9.5-90.5  34.2-100.0    9.5-90.5    0.0-65.8
all                            3        66.7       100.0        50.0         0.0
                                   20.8-93.9  34.2-100.0    9.5-90.5    0.0-65.8

in held-out wordings       facts        said       known      known,       said,
                                                            not said   not known
plays                          2        50.0       100.0        50.0         0.0
                                    9.5-90.5  34.2-100.0    9.5-90.5    0.0-65.8
all                            2        50.0       100.0        50.0         0.0
                                    9.5-90.5  34.2-100.0    9.5-90.5    0.0-65.8
all, in other wordings         3        80.0       100.0        25.0         0.0
                                   37.6-96.4  34.2-100.0    4.6-69.9    0.0-65.8

wording (*: held out)              facts    said                known,     said,
                                                              not said not known
lies
  {} asks                              1   100.0  20.7-100.0         -         -
plays
  {} asks                              2    50.0    9.5-90.5      50.0       0.0
  {} asks again                        2   100.0  34.2-100.0       0.0       0.0
* {} asks again again                  2    50.0    9.5-90.5      50.0       0.0
)");
}

TEST_CASE("no line is wider than the terminal, and what the file says moves no cursor") {
  auto record = probe_record("plays\x1b[2J", {1, 1, 3}, 1);
  record.wordings[0].prompt = "S " + std::string(200, 'x') + "\r\n";
  record.wordings[1].prompt = "S \xE6\x9D\xB1\xE4\xBA\xAC";
  const auto summary = summary_of({record, probe_record("lies", {1, 2})});
  for (const int columns : {1, 72, 80, 100, 200}) {
    CAPTURE(columns);
    const auto text = render_probe_summary(summary, {.columns = columns});
    CHECK(widest_line(text) <= std::max(72, columns));
    CHECK(text.find('\x1b') == std::string::npos);
    CHECK(text.find('\r') == std::string::npos);
  }
  const auto ascii = render_probe_summary(summary, {.unicode = false});
  CHECK(std::all_of(ascii.begin(), ascii.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; }));
}

TEST_CASE("of many wordings the commonest are shown and the rest are counted") {
  std::vector<ProbeRecord> records;
  for (int i = 0; i < 30; ++i) {
    records.push_back(probe_record("plays", {1, 1}));
    records.back().wordings[1].prompt = "S once " + std::to_string(i);
  }
  const auto text = render_probe_summary(summary_of(records), {});
  CHECK(text == Contains("{} asks"));
  CHECK(text == Contains("{} once 10"));
  CHECK(text != Contains("{} once 11"));
  CHECK(text == Contains("and 19 rarer wordings"));
}

TEST_CASE("a share short of all is not shown as all") {
  std::vector<ProbeRecord> records(5000, probe_record("plays", {1}));
  records.push_back(probe_record("plays", {2}));
  const auto text = render_probe_summary(summary_of(records), {});
  CHECK(text == Contains("99.9"));
  CHECK(text != Contains("100.0"));
}

TEST_CASE("a summary without a probed fact says so") {
  CHECK(render_probe_summary(summary_of({failed_probe_record()}), {}) == Contains("Nothing was probed."));
}

}  // namespace
}  // namespace rometrace::probe_text_test

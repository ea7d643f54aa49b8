#include "rometrace/facts/facts.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absent_files.hpp"
#include "checks.hpp"
#include "facts/facts_checks.hpp"
#include "files.hpp"
#include "rometrace/error.hpp"
#include "rometrace/text/json_file.hpp"

namespace rometrace::facts_test {
namespace {

using testing::bad_at;
using testing::Contains;
using testing::count_bad;
using testing::fact_at;
using testing::ids_of;
using testing::message_of;
using testing::prompts_of;
using testing::read_text_as_facts;
using testing::TemporaryFolder;
using Texts = std::vector<std::string>;

const std::filesystem::path kShipped = ROMETRACE_SOURCE_DIR "/share/rometrace/facts.json";
const std::filesystem::path kShared = ROMETRACE_SOURCE_DIR "/../shared/facts";

TEST_CASE("known_1000 gives its whole prompt and leaves its template alone") {
  const Facts facts = read_text_as_facts(R"([
    {"known_id": 16, "subject": "Vinson Massif", "attribute": " Antarctica ", "template": "{} is located in the",
     "prediction": " of Antarctica. It", "prompt": "Vinson Massif is in the continent of", "relation_id": "P30"}])");
  const Fact& fact = fact_at(facts, 0);
  CHECK(fact.record == 1);
  CHECK(fact.where == Contains("facts, record 1"));
  CHECK(fact.id == "16");
  CHECK(fact.id_is_number);
  CHECK(fact.subject == "Vinson Massif");
  CHECK(fact.relation == "P30");
  CHECK(fact.object == "Antarctica");
  CHECK(prompts_of(fact) == Texts{"Vinson Massif is in the continent of"});
  CHECK(facts.sources.at(0).layout == "known_1000 of ROME, JSON");
}

TEST_CASE("CounterFact's original layout gives the true target and the paraphrases that hold the subject") {
  const Facts facts = read_text_as_facts(R"([{"case_id": 0, "pararel_idx": 2796,
    "requested_rewrite": {"prompt": "The mother tongue of {} is", "relation_id": "P103",
      "target_new": {"str": "English", "id": "Q1860"}, "target_true": {"str": "French", "id": "Q150"},
      "subject": "Danielle Darrieux"},
    "paraphrase_prompts": ["Shayna does this and Yossel goes. Danielle Darrieux, a native", "She spoke",
                           "The mother tongue of Danielle Darrieux is"],
    "neighborhood_prompts": ["The mother tongue of Leon Blum is"], "generation_prompts": ["Danielle Darrieux was"]}])");
  const Fact& fact = fact_at(facts, 0);
  CHECK(fact.id == "0");
  CHECK(fact.id_is_number);
  CHECK(fact.subject == "Danielle Darrieux");
  CHECK(fact.relation == "P103");
  CHECK(fact.object == "French");
  CHECK(prompts_of(fact) == Texts{"The mother tongue of Danielle Darrieux is",
                                  "Shayna does this and Yossel goes. Danielle Darrieux, a native"});
  CHECK(facts.sources.at(0).layout == "CounterFact, JSON");
}

TEST_CASE("each wording has the subject where its slot was, or where subject_at says, or first") {
  const Facts facts =
      read_text_as_facts(R"({"relations": {"feels": {"wordings": ["The sentiment of '{}' is", "{} is"]}},
    "facts": [{"subject": "time", "relation": "feels"},
              {"subject": " time\t", "prompt": "time after time is"},
              {"subject": "time", "prompt": "time after time is", "subject_at": "last"},
              {"subject": "time", "prompt": "time after time is", "subject_at": 2},
              {"subject": "time", "prompt": "time after time is", "subject_at": [11, 15]},
              {"subject": "time", "prompt": "f(){} // time is", "subject_at": "7:11"},
              {"subject": "time", "prompt": "f(){} // time is", "subject_at": "9:13"},
              {"subject": "time", "prompt": "In time, {} is"},
              {"subject": "time", "prompt": "time is", "subject_at": "2"},
              {"subject": "time", "prompt": "time is", "subject_at": true}]})");
  const auto& both = fact_at(facts, 0).wordings;
  REQUIRE(both.size() == 2);
  CHECK(both[0].subject == ByteRange{18, 22});
  CHECK(both[1].subject == ByteRange{0, 4});
  CHECK(fact_at(facts, 0).remark.empty());
  CHECK(fact_at(facts, 1).subject == "time");
  CHECK(fact_at(facts, 1).wordings.front().subject == ByteRange{0, 4});
  CHECK(fact_at(facts, 1).remark == Contains("2 times; the first was taken (subject_at chooses)"));
  for (const std::size_t place : {2, 3, 4}) {
    CHECK(fact_at(facts, place).wordings.front().subject == ByteRange{11, 15});
    CHECK(fact_at(facts, place).remark.empty());
  }
  CHECK(bad_at(facts, 5).message == Contains("bytes 7:11 of the prompt"));
  CHECK(fact_at(facts, 6).wordings.front().prompt == "f(){} // time is");
  CHECK(fact_at(facts, 6).wordings.front().subject == ByteRange{9, 13});
  CHECK(fact_at(facts, 7).wordings.front().subject == ByteRange{9, 13});
  CHECK(fact_at(facts, 7).remark == Contains("has {} and, elsewhere, the subject \"time\""));
  CHECK(bad_at(facts, 8).message ==
        Contains("subject_at: subject \"time\" is in the prompt \"time is\" 1 time; expected 2"));
  CHECK(bad_at(facts, 9).message == Contains("subject_at is \"true\"; expected first, last"));
}

TEST_CASE("CounterFact's flat layout gives ground_truth and the rephrased prompt") {
  const Facts facts = read_text_as_facts(R"([{"case_id": 3087, "prompt": "David Robinson plays the sport",
    "target_new": "baseball", "subject": "David Robinson", "ground_truth": "basketball",
    "rephrase_prompt": "David Robinson's greatest weakness is", "locality_prompt": "Shaquille O'Neal plays"},
    {"case_id": 1, "prompt": "A is in", "subject": "A", "ground_truth": "x", "rephrase_prompt": "it is in"}])");
  CHECK(fact_at(facts, 0).object == "basketball");
  CHECK_FALSE(fact_at(facts, 0).relation.has_value());
  CHECK(prompts_of(fact_at(facts, 0)) ==
        Texts{"David Robinson plays the sport", "David Robinson's greatest weakness is"});
  CHECK(prompts_of(fact_at(facts, 1)) == Texts{"A is in"});
  CHECK(facts.sources.at(0).layout == "CounterFact, flat, JSON");
}

constexpr const char* kCities = R"({"name": "city in country", "prompt_templates": ["{} is part of", "{} is in"],
    "prompt_templates_zs": ["{} is in", "The country of {} is"], "properties": {"symmetric": false},
    "samples": [{"subject": "New York City", "object": "United States"}, {"subject": "São Paulo", "object": "Brazil"},
                {"subject": "São Paulo", "object": "Brasil"}]})";

TEST_CASE("a relation file gives a fact for each sample with all its templates filled") {
  const Facts facts = read_text_as_facts(kCities);
  REQUIRE(facts.records.size() == 3);
  const Fact& fact = fact_at(facts, 1);
  CHECK(fact.record == 2);
  CHECK(fact.where == Contains("facts, record 2"));
  CHECK(fact.relation == "city in country");
  CHECK(fact.object == "Brazil");
  CHECK(prompts_of(fact) == Texts{"São Paulo is part of", "São Paulo is in", "The country of São Paulo is"});
  CHECK(ids_of(facts) ==
        Texts{"city_in_country/new-york-city", "city_in_country/são-paulo", "city_in_country/são-paulo-2"});
  CHECK(subjects_of(facts) == Texts{"New York City", "São Paulo", "São Paulo"});
  CHECK(facts.sources.at(0).layout == "relation files, JSON");
}

TEST_CASE("relation files may stand in a list or a line each") {
  const std::string other = R"({"name": "b", "prompt_templates": ["{} b"], "samples": [{"subject": "B"}]})";
  std::string cities;
  for (const char c : std::string(kCities)) cities += c == '\n' ? ' ' : c;
  const Facts list = read_text_as_facts("[" + cities + "," + other + "]");
  REQUIRE(list.records.size() == 4);
  CHECK(fact_at(list, 1).where == Contains("facts, record 1, sample 2"));
  CHECK(fact_at(list, 3).where == Contains("facts, record 2, sample 1"));
  CHECK(fact_at(list, 3).record == 4);
  CHECK_FALSE(fact_at(list, 3).object.has_value());
  const Facts lines = read_text_as_facts(cities + "\n" + other + "\n");
  CHECK(ids_of(lines) == ids_of(list));
  CHECK(fact_at(lines, 3).where == Contains("facts, line 2, sample 1"));
  CHECK(lines.sources.at(0).layout == "relation files, JSON Lines");
}

TEST_CASE("our own layout gives each fact its relation's wordings with those held out last") {
  const Facts facts = read_text_as_facts(R"({"schema": "rometrace/facts/1", "source": "a test",
    "relations": {"plays": {"description": "x", "wordings": [
      {"text": "{} plays the"}, {"text": "What {} plays is the", "held_out": true}, {"text": "{} is on the"}]}},
    "facts": [{"id": "a", "subject": "Miles Davis", "relation": "plays", "object": "trumpet"},
              {"id": "b", "subject": "Chet", "relation": "plays", "prompt": "Chet is on the"},
              {"id": "c", "subject": "Chet", "relation": "plays", "prompt": "At night {} plays the"},
              {"id": "d", "subject": "Chet", "relation": "plays", "prompt": "What Chet plays is the"},
              {"id": "e", "subject": "Chet", "relation": null, "prompt": "{} sang"},
              {"id": "f", "subject": "Chet", "relation": "unknown", "prompt": "{} sang"}]})");
  REQUIRE(count_bad(facts) == 0);
  CHECK(prompts_of(fact_at(facts, 0)) ==
        Texts{"Miles Davis plays the", "Miles Davis is on the", "(held out) What Miles Davis plays is the"});
  CHECK(prompts_of(fact_at(facts, 1)) ==
        Texts{"Chet is on the", "Chet plays the", "(held out) What Chet plays is the"});
  CHECK(prompts_of(fact_at(facts, 2)).front() == "At night Chet plays the");
  CHECK(fact_at(facts, 2).wordings.size() == 4);
  CHECK(prompts_of(fact_at(facts, 3)).front() == "(held out) What Chet plays is the");
  CHECK(prompts_of(fact_at(facts, 4)) == Texts{"Chet sang"});
  CHECK(prompts_of(fact_at(facts, 5)) == Texts{"Chet sang"});
  CHECK(fact_at(facts, 5).relation == "unknown");
  CHECK(facts.sources.at(0).layout == "rometrace/facts/1, JSON");
}

TEST_CASE("a relation may be a prompt or a list of texts or one text") {
  for (const char* relation :
       {R"({"prompt": "{} plays"})", R"(["{} plays"])", R"("{} plays")", R"({"wordings": ["{} plays"]})",
        R"({"wordings": [{"text": "{} plays"}, "{} plays"]})"}) {
    CAPTURE(relation);
    const Facts facts = read_text_as_facts(std::string(R"({"relations": {"r": )") + relation +
                                           R"(}, "facts": [{"subject": "A", "relation": "r"}]})");
    CHECK(prompts_of(fact_at(facts, 0)) == Texts{"A plays"});
  }
}

TEST_CASE("a list of tuples may call its object by any of the usual names") {
  for (const char* name : {"object", "attribute", "answer", "target", "ground_truth", "target_true"}) {
    const Facts facts =
        read_text_as_facts(R"([{"subject": "A", "prompt": "{} is in", ")" + std::string(name) + R"(": "B"}])");
    CHECK(fact_at(facts, 0).object == "B");
    CHECK(prompts_of(fact_at(facts, 0)) == Texts{"A is in"});
  }
  CHECK(read_text_as_facts(R"({"subject": "A", "prompt": "A is"})").records.size() == 1);
}

TEST_CASE("lines of JSON are records and a line with relations serves those below") {
  const Facts facts = read_text_as_facts(
      "\xEF\xBB\xBF"
      R"({"schema": "rometrace/facts/1", "relations": {"r": ["{} is"]}}

{"subject": "A", "relation": "r"})"
      "\r\n"
      R"({"id": 7, "subject": "B", "prompt": "so B is", "relation": "r"}
{"case_id": 8, "requested_rewrite": {"prompt": "{} x", "subject": "C", "target_true": {"str": "y"}}})");
  REQUIRE(count_bad(facts) == 0);
  REQUIRE(facts.records.size() == 3);
  CHECK(prompts_of(fact_at(facts, 0)) == Texts{"A is"});
  CHECK(fact_at(facts, 0).where == Contains("facts, line 3"));
  CHECK(fact_at(facts, 0).record == 1);
  CHECK(prompts_of(fact_at(facts, 1)) == Texts{"so B is", "B is"});
  CHECK(fact_at(facts, 2).object == "y");
  CHECK(facts.sources.at(0).layout == "rometrace/facts/1, JSON Lines");
}

TEST_CASE("a bad line of JSON is named and the rest is read") {
  for (const char* bad : {R"({"subject": "A", )", "{]", "[[", R"({"subject": "\xFF"})"}) {
    CAPTURE(bad);
    const Facts last = read_text_as_facts(R"({"subject": "A", "prompt": "A is"})"
                                          "\n" +
                                          std::string(bad));
    CHECK(fact_at(last, 0).subject == "A");
    CHECK(bad_at(last, 1).message == Contains("facts, line 2, column "));
    if (bad[0] != '{') continue;
    const Facts first = read_text_as_facts(std::string(bad) +
                                           "\n"
                                           R"({"subject": "A", "prompt": "A is"})");
    CHECK(bad_at(first, 0).message == Contains("facts, line 1, column "));
    CHECK(bad_at(first, 0).where == Contains("facts, line 1"));
    CHECK(fact_at(first, 1).record == 2);
  }
}

TEST_CASE("CSV and TSV and semicolons are told by the header") {
  for (const char separator : {',', ';', '\t'}) {
    CAPTURE(separator);
    std::string text =
        "id|subject|relation|object|prompt|note\n16|Miles Davis|plays| trumpet |{} plays the|x\n"
        "a|Chet||y|\"So \"\"Chet\"\"| plays\"|\n";
    for (char& c : text) c = c == '|' ? separator : c;
    const Facts facts = read_text_as_facts(text);
    REQUIRE(count_bad(facts) == 0);
    CHECK(fact_at(facts, 0).id == "16");
    CHECK(fact_at(facts, 0).id_is_number);
    CHECK(fact_at(facts, 0).object == "trumpet");
    CHECK(fact_at(facts, 0).relation == "plays");
    CHECK(prompts_of(fact_at(facts, 0)) == Texts{"Miles Davis plays the"});
    CHECK(fact_at(facts, 0).where == Contains("facts, line 2"));
    CHECK_FALSE(fact_at(facts, 1).id_is_number);
    CHECK_FALSE(fact_at(facts, 1).relation.has_value());
    CHECK(prompts_of(fact_at(facts, 1)) == Texts{"So \"Chet\"" + std::string(1, separator) + " plays"});
    CHECK(facts.sources.at(0).layout == (separator == '\t' ? "tuples, TSV" : "tuples, CSV"));
  }
}

TEST_CASE("CSV may have only subject and prompt and come from a spreadsheet") {
  const Facts facts = read_text_as_facts("\xEF\xBB\xBF\"Subject\", Prompt \r\nA,\"A is\r\nin\"\r\n,\r\nB,{} is\r\n");
  REQUIRE(count_bad(facts) == 0);
  CHECK(ids_of(facts) == Texts{"fact/a", "fact/b"});
  CHECK(prompts_of(fact_at(facts, 0)) == Texts{"A is\r\nin"});
  CHECK(fact_at(facts, 1).where == Contains("facts, line 5"));
  CHECK_FALSE(fact_at(facts, 0).object.has_value());
}

TEST_CASE("columns take the names of every layout") {
  const Facts facts = read_text_as_facts(
      "case_id,Prompt,target_new,subject,Ground Truth,rephrase-prompt,Relation ID\n3,A is,n,A,t,So A is,P1\n");
  const Fact& fact = fact_at(facts, 0);
  CHECK(fact.id == "3");
  CHECK(fact.object == "t");
  CHECK(fact.relation == "P1");
  CHECK(prompts_of(fact) == Texts{"A is", "So A is"});
  CHECK(facts.sources.at(0).layout == "CounterFact, flat, CSV");
}

TEST_CASE("the same records get the same ids whether they come as JSON or as CSV") {
  for (const char* id : {"16", "-3", "0", "016", "1.5", "+2", "99999999999999999999"}) {
    CAPTURE(id);
    const Facts facts = read_text_as_facts("id,subject,prompt\n" + std::string(id) + ",A,A is\n");
    CHECK(fact_at(facts, 0).id == id);
    CHECK(fact_at(facts, 0).id_is_number == (std::string(id).size() <= 2 && id[0] != '+'));
  }
}

TEST_CASE("a file is known by its bytes and its name without folders") {
  const TemporaryFolder folder;
  const std::vector<std::filesystem::path> files{folder.write("a/one.json", R"([{"subject": "A", "prompt": "A b"}])"),
                                                 folder.write("two.csv", "subject,prompt\nA,A b\nB,A b\n")};
  const Facts facts = read_facts(files);
  REQUIRE(facts.sources.size() == 2);
  CHECK(facts.sources[0].name == "one.json");
  CHECK(facts.sources[0].sha256 == "2825f270eee56a9ef72ab9202125d7aff7fba261bdc0a6f17e300ced556184b9");
  CHECK(facts.sources[0].records == 1);
  CHECK(facts.sources[1].records == 2);
  CHECK(fact_at(facts, 1).record == 2);
  CHECK(fact_at(facts, 1).where == Contains("two.csv, line 2"));
  CHECK(fact_at(facts, 1).id == "fact/a-2");
  CHECK(bad_at(facts, 2).record == 3);  // "B" is not in "A b"
}

TEST_CASE("relations of one file hold for the files after it") {
  const TemporaryFolder folder;
  const auto ours =
      folder.write("ours", R"({"relations": {"r": ["{} is"]}, "facts": [{"subject": "A", "relation": "r"}]})");
  const auto tuples = folder.write("tuples", "subject,relation,object\nB,r,x\n");
  CHECK(prompts_of(fact_at(read_facts(std::vector{ours, tuples}), 1)) == Texts{"B is"});
  CHECK(bad_at(read_facts(std::vector{tuples, ours}), 0).message ==
        Contains("tuples, line 2: has no \"prompt\", and its relation \"r\" is not defined"));
}

TEST_CASE("a dash is standard input") {
  const TemporaryFolder folder;
  const auto file = folder.write("facts.csv", "subject,prompt\nA,A is\n");
  const int kept = ::dup(STDIN_FILENO);
  const int opened = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  ::dup2(opened, STDIN_FILENO);
  ::close(opened);
  const std::vector<std::filesystem::path> files{"-"};
  const Facts facts = read_facts(files);
  const std::string again = message_of<Error>([&] { read_facts(files); });  // all of it has been read
  ::dup2(kept, STDIN_FILENO);
  ::close(kept);
  CHECK(fact_at(facts, 0).where == "standard input, line 2");
  CHECK(facts.sources.at(0).name == "standard input");
  CHECK(again == "standard input: is empty");
  const std::vector<std::filesystem::path> twice{"-", "-"};
  CHECK(message_of<Error>([&] { read_facts(twice); }) == Contains("named twice"));
}

TEST_CASE("ids that are missing are made from relation and subject") {
  const Facts facts = read_text_as_facts(R"([
    {"subject": "A Room of One's Own", "relation": "written_by", "prompt": "{} is by"},
    {"subject": "Béla  Bartók!", "relation": "P 30 [x]", "prompt": "{} is"},
    {"subject": "A room of one's own", "relation": "written_by", "prompt": "{} is by"},
    {"subject": "???", "prompt": "{} is"}, {"subject": "a", "prompt": "{} is"}, {"subject": "A", "prompt": "{} is"},
    {"id": "fact/b", "subject": "x", "prompt": "{} is"}, {"subject": "b", "prompt": "{} is"},
    {"id": null, "subject": "a", "prompt": "{} is"}])");
  CHECK(ids_of(facts) == Texts{"written_by/a-room-of-one-s-own", "P_30_x/béla-bartók",
                               "written_by/a-room-of-one-s-own-2", "fact/subject", "fact/a", "fact/a-2", "fact/b",
                               "fact/b-2", "fact/a-3"});
}

TEST_CASE("an id that is made does not depend on other facts") {
  const std::string a = R"({"subject": "A", "prompt": "{} is"})";
  const std::string b = R"({"subject": "B", "prompt": "{} is"})";
  const std::string bad = R"({"subject": "A"})";
  CHECK(ids_of(read_text_as_facts("[" + b + "," + a + "]")) == Texts{"fact/b", "fact/a"});
  CHECK(ids_of(read_text_as_facts("[" + a + "]")) == Texts{"fact/a"});
  CHECK(ids_of(read_text_as_facts("[" + bad + "," + a + "," + b + "]")) == Texts{"(bad)", "fact/a", "fact/b"});
}

TEST_CASE("the second record with a given id is bad and names the first") {
  const Facts facts = read_text_as_facts(R"([{"known_id": 5, "subject": "A", "prompt": "A is"},
    {"id": "5", "subject": "B", "prompt": "B is"}, {"id": "x", "subject": "", "prompt": "C is"},
    {"id": "x", "subject": "D", "prompt": "D is"}])");
  CHECK(fact_at(facts, 0).id == "5");
  CHECK(bad_at(facts, 1).message == Contains("facts, record 2: id \"5\" is also that of "));
  CHECK(bad_at(facts, 1).message == Contains("facts, record 1; each record"));
  CHECK(bad_at(facts, 1).id == "5");
  CHECK(bad_at(facts, 3).message == Contains("is also that of "));
  CHECK(bad_at(facts, 3).record == 4);
}

TEST_CASE("a file with ids of a file before it has its name in front of all of them") {
  const TemporaryFolder folder;
  const auto record = [](const std::string& id) {
    return R"({"case_id": )" + id + R"(, "subject": "A", "prompt": "A is"})";
  };
  const auto list = "[" + record("0") + "," + record("1") + "]";
  const auto a = folder.write("a/facts.json", list), b = folder.write("b/facts.json", list);
  const auto c = folder.write("c/facts.json", list);
  const auto other =
      folder.write("other.json", "[" + record("7") + "," + R"({"subject": "A", "prompt": "A is"})" + "]");
  const auto bad =
      folder.write("bad.json", "[" + record("1") + "," + record("8") + R"(,{"case_id": 9}, )" + record("8") + "]");
  const Facts facts = read_facts(std::vector{a, other, b, c, bad});
  CHECK(ids_of(facts) == Texts{"0", "1", "7", "fact/a", "facts.json/0", "facts.json/1", "facts.json-2/0",
                               "facts.json-2/1", "bad.json/1", "bad.json/8", "(bad)", "(bad)"});
  CHECK(fact_at(facts, 0).id_is_number);
  CHECK_FALSE(fact_at(facts, 4).id_is_number);
  CHECK(bad_at(facts, 10).id == "bad.json/9");
  CHECK(bad_at(facts, 11).message == Contains("id \"bad.json/8\" is also that of "));
  CHECK(fact_at(facts, 1).remark.empty());
  CHECK(fact_at(facts, 4).remark ==
        "facts.json: has ids of a file before it; its own have its name in front, as \"facts.json/0\"");
  CHECK(fact_at(facts, 5).remark.empty());
}

TEST_CASE("an empty cell of CSV is no object, as null is in JSON") {
  const Facts csv = read_text_as_facts("subject,prompt,object\nA,A is,\nB,B is,b\n");
  CHECK_FALSE(fact_at(csv, 0).object);
  CHECK(fact_at(csv, 1).object == "b");
  CHECK_FALSE(fact_at(read_text_as_facts(R"([{"subject": "A", "prompt": "A is", "object": null}])"), 0).object);
}

TEST_CASE("subjects are read from every layout whether or not there is a prompt") {
  const std::vector<std::pair<std::string, Texts>> cases = {
      {R"({"schema": "rometrace/facts/1", "relations": {"plays": {"prompt": "{} plays"}},
           "facts": [{"subject": "Miles Davis", "relation": "plays"}, {"subject": "Zürich", "relation": "no"},
                     {"subject": "Miles Davis"}]})",
       {"Miles Davis", "Zürich", "Miles Davis"}},
      {R"([{"known_id": 0, "subject": "Vinson Massif", "attribute": "x"}])", {"Vinson Massif"}},
      {R"([{"requested_rewrite": {"subject": "A"}}, {"requested_rewrite": {"subject": "A"}}])", {"A", "A"}},
      {R"({"name": "r", "samples": [{"subject": "A"}, {"subject": "B"}]})", {"A", "B"}},
      {"{\"subject\": \"A\"}\n{\"subject\": \"B\"}\n", {"A", "B"}},
      {"subject\nA\nB\n", {"A", "B"}},
  };
  for (const auto& [content, expected] : cases) {
    CAPTURE(content);
    const TemporaryFolder folder;
    CHECK(read_subjects(folder.write("facts", content)) == expected);
  }
}

TEST_CASE("the facts that are shipped are all good and their ids follow the rule for made ones") {
  const Facts facts = read_facts(std::span(&kShipped, 1));
  CHECK(count_bad(facts) == 0);
  CHECK(facts.records.size() == 1029);
  CHECK(read_subjects(kShipped) == subjects_of(facts));
  std::string without_ids = read_text_file(kShipped);
  for (std::size_t at = without_ids.find("{\"id\": "); at != std::string::npos;
       at = without_ids.find("{\"id\": ", at)) {
    without_ids.erase(at + 1, without_ids.find("\"subject\"", at) - at - 1);
  }
  const Facts made = read_text_as_facts(without_ids);
  REQUIRE(made.records.size() == facts.records.size());
  std::size_t compared = 0;
  for (std::size_t i = 0; i < facts.records.size(); ++i) {
    const Fact& fact = fact_at(facts, i);
    CHECK(fact.wordings.size() == 8);
    CHECK(fact.wordings[3].held_out == false);
    CHECK(fact.wordings[4].held_out == true);
    bool is_ascii = true;
    for (const char c : fact.subject) is_ascii = is_ascii && static_cast<unsigned char>(c) < 0x80;
    if (!is_ascii) continue;  // the shipped ids spell é as e
    CHECK(fact_at(made, i).id == fact.id);
    ++compared;
  }
  CHECK(compared > 900);
}

struct SharedFile {
  std::string name;
  std::size_t records;
  std::string first_prompt;
  std::string layout;
};

TEST_CASE("the files of other projects are read whole") {
  const std::vector<SharedFile> files = {
      {"known_1000.json", 1209, "Vinson Massif is located in the continent of", "known_1000 of ROME, JSON"},
      {"counterfact-edit-1k.json", 1000, "David Robinson professionally plays the sport", "CounterFact, flat, JSON"},
      {"lre/product_by_company.json", 522, "", "relation files, JSON"},
  };
  if (testing::is_absent(kShared)) return;
  for (const SharedFile& file : files) {
    CAPTURE(file.name);
    const std::vector<std::filesystem::path> paths{kShared / file.name};
    const Facts facts = read_facts(paths);
    CHECK(facts.records.size() == file.records);
    CHECK(count_bad(facts) == 0);
    if (!file.first_prompt.empty()) CHECK(fact_at(facts, 0).wordings.front().prompt == file.first_prompt);
    CHECK(facts.sources.at(0).layout == file.layout);
    CHECK(read_subjects(paths.front()).size() == file.records);
  }
}

TEST_CASE("all relation files are read together with ids of their own") {
  if (testing::is_absent(kShared)) return;
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(kShared / "lre")) paths.push_back(entry.path());
  const Facts facts = read_facts(paths);
  CHECK(facts.sources.size() == 26);
  CHECK(count_bad(facts) == 0);
  const Texts ids = ids_of(facts);
  CHECK(std::set<std::string>(ids.begin(), ids.end()).size() == ids.size());
}

}  // namespace
}  // namespace rometrace::facts_test

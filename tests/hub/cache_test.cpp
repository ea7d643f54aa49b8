#include "rometrace/hub/cache.hpp"

#include <cstdlib>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "checks.hpp"
#include "files.hpp"
#include "rometrace/error.hpp"

namespace rometrace::cache_test {
namespace {

namespace fs = std::filesystem;
using testing::Contains;
using testing::message_of;
using testing::TemporaryFolder;

using Variables = std::map<std::string, std::string>;

/// The environment that decides where the cache is, for one test: all unset but what is given.
class Environment {
 public:
  explicit Environment(const Variables& variables) {
    for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME"}) {
      const char* value = std::getenv(name);
      before_[name] = value == nullptr ? std::nullopt : std::optional<std::string>(value);
      ::unsetenv(name);
    }
    for (const auto& [name, value] : variables) {
      before_.try_emplace(name);
      ::setenv(name.c_str(), value.c_str(), 1);
    }
  }
  ~Environment() {
    for (const auto& [name, value] : before_) {
      if (value) {
        ::setenv(name.c_str(), value->c_str(), 1);
      } else {
        ::unsetenv(name.c_str());
      }
    }
  }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

 private:
  std::map<std::string, std::optional<std::string>> before_;
};

/// Puts a model into a cache folder, laid out as huggingface_hub does; returns its snapshot.
fs::path cache_model(const TemporaryFolder& folder, const fs::path& cache, const std::string& repository,
                     const std::string& commit = "c0ffee", const std::string& reference = "main") {
  folder.write(cache / repository / "refs" / reference, commit);
  const fs::path snapshot = cache / repository / "snapshots" / commit;
  for (const char* name : {"config.json", "tokenizer.json", "model.safetensors"}) folder.write(snapshot / name, "x");
  return folder.path() / snapshot;
}

std::string refusal(const std::string& model, const std::string& revision = "main") {
  std::string message = message_of<Error>([&] { resolve_model(model, revision); });
  CHECK(testing::is_one_line(message));
  return message;
}

TEST_CASE("a folder or a file is used as it is") {
  const TemporaryFolder folder;
  CHECK(resolve_model(folder.path().string()) == folder.path());
  const auto file = folder.write("model.gguf", "x");
  CHECK(resolve_model(file.string()) == file);
  CHECK(refusal((folder.path() / "other.gguf").string()) == Contains("other.gguf: no such file; expected a GGUF file"));
}

TEST_CASE("the cache is where the environment says, the most particular variable first") {
  const TemporaryFolder folder;
  const std::string base = folder.path().string();
  const std::vector<std::pair<std::string, std::string>> places = {{"HF_HUB_CACHE", "one"},
                                                                   {"HUGGINGFACE_HUB_CACHE", "two"},
                                                                   {"HF_HOME", "three"},
                                                                   {"XDG_CACHE_HOME", "four"},
                                                                   {"HOME", "five"}};
  const std::vector<fs::path> caches = {"one", "two", "three/hub", "four/huggingface/hub",
                                        "five/.cache/huggingface/hub"};
  for (std::size_t first = 0; first < places.size(); ++first) {
    CAPTURE(places[first].first);
    const fs::path snapshot = cache_model(folder, caches[first], "models--org--name");
    Variables variables;
    for (std::size_t i = first; i < places.size(); ++i) variables[places[i].first] = base + "/" + places[i].second;
    const Environment environment(variables);
    CHECK(resolve_model("org/name") == snapshot);
  }
}

TEST_CASE("a GGUF file of a repository is found by its name behind the repository's") {
  const TemporaryFolder folder;
  const Environment environment({{"HF_HUB_CACHE", folder.path().string()}});
  const fs::path snapshot = "models--org--m-GGUF/snapshots/c0ffee";
  folder.write("models--org--m-GGUF/refs/main", "c0ffee");
  const auto file = folder.write(snapshot / "m-Q4.gguf", "x"), deeper = folder.write(snapshot / "Q8/m-Q8.gguf", "x");
  CHECK(resolve_model("org/m-GGUF/m-Q4.gguf") == file);
  CHECK(resolve_model("org/m-GGUF/Q8/m-Q8.gguf") == deeper);
  CHECK(find_complete_model("org/m-GGUF/m-Q4.gguf", "c0ffee") == file);
  CHECK(refusal("org/m-GGUF/other.gguf") == Contains("no such file, nor of org/m-GGUF in the cache; expected a GGUF"));
  CHECK(refusal("org/m-GGUF/m-Q4.gguf", "v2") == Contains("no such file"));
  CHECK(refusal("org/m-GGUF/../m-Q4.gguf") == Contains("org/m-GGUF/../m-Q4.gguf: no such file; expected"));
}

TEST_CASE("the home folder and variables are expanded in the cache's place") {
  const TemporaryFolder folder;
  const std::string base = folder.path().string();
  const fs::path snapshot = cache_model(folder, "a/hub", "models--name");
  for (const std::string& value : {std::string("~/hub"), std::string("$BASE/a/hub"), std::string("${BASE}/a//hub/")}) {
    CAPTURE(value);
    const Environment environment(Variables{{"HOME", base + "/a/"}, {"BASE", base}, {"HF_HUB_CACHE", value}});
    CHECK(fs::equivalent(resolve_model("name"), snapshot));
  }
  const Environment environment(Variables{{"HF_HUB_CACHE", "/nowhere/$ROMETRACE_UNSET/${ROMETRACE_UNSET}/$/~"}});
  CHECK(refusal("name") == Contains("the cache /nowhere/$ROMETRACE_UNSET/${ROMETRACE_UNSET}/$/~ (looked for"));
}

TEST_CASE("a revision is a branch, a tag, a pull request's reference or a commit") {
  const TemporaryFolder folder;
  const Environment environment(Variables{{"HF_HUB_CACHE", folder.path().string()}});
  const fs::path main = cache_model(folder, "", "models--org--name", "1111", "main");
  const fs::path request = cache_model(folder, "", "models--org--name", "2222", "refs/pr/1");
  CHECK(resolve_model("org/name") == main);
  CHECK(resolve_model("org/name", "main") == main);
  CHECK(resolve_model("org/name", "refs/pr/1") == request);
  CHECK(resolve_model("org/name", "2222") == request);
  folder.write("models--org--name/refs/tag", "2222\n");
  CHECK(resolve_model("org/name", "tag") == request);
  CHECK(refusal("org/name", "v2") == Contains("org/name: "));
  CHECK(refusal("org/name", "v2") ==
        Contains("models--org--name has no revision \"v2\"; get it with `rometrace fetch "));
  CHECK(refusal("org/name", "refs/pr/2") == Contains("has no revision \"refs/pr/2\""));
  CHECK(refusal("org/name", "a'b;c") == Contains("--revision 'a'\\''b;c'`"));
}

TEST_CASE("the first models are found under either of their names") {
  const TemporaryFolder folder;
  const Environment environment(Variables{{"HF_HUB_CACHE", folder.path().string()}});
  const fs::path moved = cache_model(folder, "", "models--openai-community--gpt2-xl");
  CHECK(resolve_model("gpt2-xl") == moved);
  const fs::path old = cache_model(folder, "", "models--gpt2-xl");
  CHECK(resolve_model("gpt2-xl") == old);
  CHECK(resolve_model("openai-community/gpt2-xl") == moved);
  fs::remove(moved / "model.safetensors");  // as after a download of the tokeniser alone
  CHECK(resolve_model("openai-community/gpt2-xl") == old);
  fs::remove(old / "model.safetensors");
  CHECK(refusal("openai-community/gpt2-xl") == Contains("gpt2-xl: not all of it is in the cache: " + moved.string() +
                                                        ": has no weights; expected model.safetensors"));
  const fs::path distilled = cache_model(folder, "", "models--distilgpt2");
  CHECK(resolve_model("distilbert/distilgpt2") == distilled);
}

TEST_CASE("a model that is not there is refused with where it was looked for and how to get it") {
  const TemporaryFolder folder;
  const Environment environment(Variables{{"HF_HUB_CACHE", folder.path().string()}});
  CHECK(refusal("gpt2-xl") ==
        "gpt2-xl: neither a folder nor in the cache " + folder.path().string() +
            " (looked for models--gpt2-xl and models--openai-community--gpt2-xl); get it with `rometrace fetch "
            "openai-community/gpt2-xl`, or give a model's folder");
  CHECK(refusal("org/name") == Contains("(looked for models--org--name); get it with `rometrace fetch org/name`"));
  cache_model(folder, "", "models--org--name");
  fs::remove(folder.path() / "models--org--name/snapshots/c0ffee/config.json");
  CHECK(refusal("org/name") == Contains("c0ffee: has no config.json; expected a language model in Hugging Face layout; "
                                        "get it with `rometrace fetch org/name`, or"));
}

TEST_CASE("a model is complete in the cache when nothing has to be fetched to trace it, under either of its names") {
  const TemporaryFolder folder;
  const Environment environment(Variables{{"HF_HUB_CACHE", folder.path().string()}});
  CHECK_FALSE(find_complete_model("gpt2").has_value());
  fs::remove(cache_model(folder, "", "models--gpt2") / "tokenizer.json");
  CHECK_FALSE(find_complete_model("gpt2").has_value());
  const fs::path moved = cache_model(folder, "", "models--openai-community--gpt2");
  CHECK(find_complete_model("gpt2") == moved);
  CHECK_FALSE(find_complete_model("gpt2", "v2").has_value());
  CHECK(find_complete_model(folder.path().string()) == folder.path());
  CHECK(message_of<Error>([] { find_complete_model("a b"); }) == Contains("not a model's name"));
  CHECK(message_of<Error>([] { find_complete_model("gpt2", ".."); }) == Contains("expected a branch"));
}

TEST_CASE("what is neither a folder nor a name is refused, and leads nowhere else") {
  const TemporaryFolder folder;
  const Environment environment(Variables{{"HF_HUB_CACHE", (folder.path() / "cache").string()}});
  cache_model(folder, "cache", "models--name");
  folder.write("secret/config.json", "{}");
  for (const std::string& name :
       {std::string(""), std::string("../../x"), std::string("a/b/c"), std::string("/none"), std::string("a/"),
        std::string("a\nb"), std::string("name\0", 5), std::string("a--b"), std::string(".a"), std::string("a b"),
        std::string("a..b"), std::string("é"), std::string("x.git"), std::string(97, 'x'), std::string(9000, 'x')}) {
    CAPTURE(name);
    CHECK(refusal(name) == Contains("no such folder, and not a model's name"));
  }
  for (const std::string& revision : {std::string(""), std::string(".."), std::string("../../../secret"),
                                      std::string("/etc/passwd"), std::string("a//b"), std::string("main\0", 5)}) {
    CAPTURE(revision);
    CHECK(refusal("name", revision) == Contains("expected a branch, a tag or a commit"));
  }
  folder.write("cache/models--name/refs/main", "../../../secret");
  CHECK(refusal("name") == Contains("refs/main: is \"../../../secret\"; expected a commit"));
  folder.write("cache/models--name/refs/main", "..");
  CHECK(refusal("name") == Contains("refs/main: is \"..\"; expected a commit"));
}

}  // namespace
}  // namespace rometrace::cache_test

// Runs the test cases, as doctest's main does, and counts them: a case that could not be tried on this machine says so
// (skip.hpp), and one that checks nothing and does not say so fails, since it would pass whatever the program does.

#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <iostream>
#include <string>
#include <string_view>

#include "skip.hpp"

namespace {

constexpr int kAllSkipped = 77;  // exit status; tests/CMakeLists.txt tells ctest

struct Counts {
  int passed = 0, failed = 0, skipped = 0, assertions = 0;
};
Counts counts;

/// Counts the cases, and says which were skipped and which checked nothing.
struct CountingListener : doctest::IReporter {
  explicit CountingListener(const doctest::ContextOptions& /*options*/) {}

  void test_case_start(const doctest::TestCaseData& test) override {
    name_ = test.m_name;
    skipped_.clear();
  }
  void log_message(const doctest::MessageData& message) override {
    const std::string text = message.m_string.c_str();
    if (text.starts_with(rometrace::testing::kSkipped)) skipped_ = text.substr(rometrace::testing::kSkipped.size());
  }
  void test_case_end(const doctest::CurrentTestCaseStats& test) override {
    counts.assertions += test.numAssertsCurrentTest;
    if (!test.testCaseSuccess) {
      ++counts.failed;
    } else if (!skipped_.empty()) {
      ++counts.skipped;
      std::cout << "skipped: " << name_ << ": " << skipped_ << '\n';
    } else if (test.numAssertsCurrentTest == 0) {
      ++counts.failed;
      std::cerr << "checked nothing: " << name_ << '\n';
    } else {
      ++counts.passed;
    }
  }

  void report_query(const doctest::QueryData& /*query*/) override {}
  void test_run_start() override {}
  void test_run_end(const doctest::TestRunStats& /*run*/) override {}
  void test_case_reenter(const doctest::TestCaseData& /*test*/) override {}
  void test_case_exception(const doctest::TestCaseException& /*exception*/) override {}
  void subcase_start(const doctest::SubcaseSignature& /*subcase*/) override {}
  void subcase_end() override {}
  void log_assert(const doctest::AssertData& /*assertion*/) override {}
  void test_case_skipped(const doctest::TestCaseData& /*test*/) override {}

 private:
  const char* name_ = "";
  std::string skipped_;  // why this case is
};
REGISTER_LISTENER("counting", 1, CountingListener);

}  // namespace

int main(int argc, char** argv) {
  doctest::Context context(argc, argv);
  const int status = context.run();
  if (context.shouldExit()) return status;  // a list of the tests was asked for
  // What tests/count_results.py reads.
  std::cout << "test cases: " << counts.passed << " passed, " << counts.failed << " failed, " << counts.skipped
            << " skipped; " << counts.assertions << " assertions\n";
  if (status != 0 || counts.failed > 0) return 1;
  if (counts.passed + counts.skipped == 0) {
    std::cerr << "no test case has this name, or is in this file\n";
    return 1;
  }
  return counts.passed == 0 ? kAllSkipped : 0;
}

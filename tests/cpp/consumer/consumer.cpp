#include <iostream>
#include <robustscanner/recognizer.hpp>

int main(int, char** texts) {
    try {
        const robustscanner::Recognizer recognizer;  // the shipped model, from where it was installed
        std::cout << recognizer.read(texts[1]).text << '\n';
    } catch (const robustscanner::Error& error) {
        std::cerr << "error: " << error.what() << '\n';
        return 1;
    }
}
